-- Which history of the database this is: cursors say it, so that one of before a restore is told from
-- one of after it. See decision 20. No text means: as before there were epochs, nothing in cursors.
CREATE TABLE epoch (
    id       TEXT NOT NULL,
    began_ms BIGINT NOT NULL
);
INSERT INTO epoch (id, began_ms)
SELECT CASE WHEN EXISTS (SELECT 1 FROM partners) THEN '' ELSE lower(hex(randomblob(6))) END,
       CAST(unixepoch('subsec') * 1000 AS INTEGER);
