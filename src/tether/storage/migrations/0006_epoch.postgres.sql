-- Which history of the database this is: cursors say it, so that one of before a restore is told from
-- one of after it. See decision 20. No text means: as before there were epochs, nothing in cursors.
CREATE TABLE epoch (
    id       {text} NOT NULL,
    began_ms BIGINT NOT NULL,
    home     {text} NOT NULL  -- the numbers of database and table: those of a restored dump differ
);
INSERT INTO epoch (id, began_ms, home)
SELECT CASE WHEN EXISTS (SELECT 1 FROM partners) THEN ''
            ELSE substr(replace(CAST(gen_random_uuid() AS TEXT), '-', ''), 1, 12) END,
       CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT),
       (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       || '.' || CAST('epoch'::regclass AS OID);
