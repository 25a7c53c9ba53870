-- The events of a charger and of a vehicle, in the order of commits, and of a vehicle in the order of
-- time. An index would have a page of it written for nearly every event; these lists are written
-- behind, some thousand events at once in the list's own order: see decision 18.

-- An event has some 400 bytes, and clustered tables keep whole rows in their inner pages too: so few
-- fit there that these outgrow the cache, and a look-up by id reads one more page from the file. In a
-- table with a rowid the inner pages hold numbers only.
CREATE TABLE numbered_events (
    partner    BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    id         TEXT NOT NULL,
    type       TEXT NOT NULL,
    charger_id TEXT NOT NULL,
    vehicle_id TEXT NOT NULL,
    at_ms      BIGINT NOT NULL,
    stamp      BIGINT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (partner, seq)
);
INSERT INTO numbered_events SELECT * FROM events ORDER BY partner, seq;
DROP TABLE events;
ALTER TABLE numbered_events RENAME TO events;
CREATE UNIQUE INDEX events_by_id ON events (partner, id);
-- Time comes first, as that is nearly the order of arrival: new entries go to its end, not all over
-- it. Windows of time are found in it too.
CREATE UNIQUE INDEX events_by_identity
    ON events (partner, at_ms, vehicle_id, type, charger_id, stamp);

CREATE TABLE listings (
    partner BIGINT NOT NULL PRIMARY KEY,
    seq     BIGINT NOT NULL  -- the last event that the lists have
) WITHOUT ROWID;

CREATE TABLE list_of_charger (
    partner    BIGINT NOT NULL,
    charger_id TEXT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (partner, charger_id, seq)
) WITHOUT ROWID;

CREATE TABLE list_of_vehicle (
    partner    BIGINT NOT NULL,
    vehicle_id TEXT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (partner, vehicle_id, seq)
) WITHOUT ROWID;

CREATE TABLE list_by_time (
    partner    BIGINT NOT NULL,
    vehicle_id TEXT NOT NULL,
    at_ms      BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (partner, vehicle_id, at_ms, seq)
) WITHOUT ROWID;

INSERT INTO listings (partner, seq) SELECT partner, max(seq) FROM events GROUP BY partner;
INSERT INTO list_of_charger (partner, charger_id, seq)
SELECT partner, charger_id, seq FROM events ORDER BY partner, charger_id, seq;
INSERT INTO list_of_vehicle (partner, vehicle_id, seq)
SELECT partner, vehicle_id, seq FROM events ORDER BY partner, vehicle_id, seq;
INSERT INTO list_by_time (partner, vehicle_id, at_ms, seq)
SELECT partner, vehicle_id, at_ms, seq FROM events ORDER BY partner, vehicle_id, at_ms, seq;

CREATE TRIGGER events_deleted AFTER DELETE ON events BEGIN
    DELETE FROM list_of_charger
    WHERE partner = OLD.partner AND charger_id = OLD.charger_id AND seq = OLD.seq;
    DELETE FROM list_of_vehicle
    WHERE partner = OLD.partner AND vehicle_id = OLD.vehicle_id AND seq = OLD.seq;
    DELETE FROM list_by_time
    WHERE partner = OLD.partner AND vehicle_id = OLD.vehicle_id AND at_ms = OLD.at_ms
      AND seq = OLD.seq;
END;

-- The last events are not in the lists yet: they follow in the order of commits.
CREATE VIEW unlisted_events AS
SELECT e.partner, e.seq, e.type, e.charger_id, e.vehicle_id, e.at_ms, e.body
FROM partners p CROSS JOIN events e ON e.partner = p.id
WHERE e.seq > coalesce((SELECT n.seq FROM listings n WHERE n.partner = p.id), 0);

CREATE VIEW charger_events AS
SELECT l.partner, l.charger_id, l.seq, e.type, e.vehicle_id, e.at_ms, e.body
FROM list_of_charger l CROSS JOIN events e ON e.partner = l.partner AND e.seq = l.seq
UNION ALL
SELECT partner, charger_id, seq, type, vehicle_id, at_ms, body FROM unlisted_events;

CREATE VIEW vehicle_events AS
SELECT l.partner, l.vehicle_id, l.seq, e.type, e.charger_id, e.at_ms, e.body
FROM list_of_vehicle l CROSS JOIN events e ON e.partner = l.partner AND e.seq = l.seq
UNION ALL
SELECT partner, vehicle_id, seq, type, charger_id, at_ms, body FROM unlisted_events;

-- Only what is in the lists: whoever reads it asks for what the sessions contain.
CREATE VIEW vehicle_history AS
SELECT l.partner, l.vehicle_id, l.at_ms, e.type, e.charger_id, e.stamp, l.seq, e.body
FROM list_by_time l CROSS JOIN events e ON e.partner = l.partner AND e.seq = l.seq;

-- For `tether check --full`: how many entries each list should have, how many it has, and how many of
-- these are right.
CREATE VIEW listing_counts AS
WITH due AS (
    SELECT e.partner, e.charger_id, e.vehicle_id, e.at_ms, e.seq
    FROM listings n CROSS JOIN events e ON e.partner = n.partner
    WHERE e.seq <= n.seq
)
SELECT 'list_of_charger' AS list,
       (SELECT count(*) FROM due) AS due, (SELECT count(*) FROM list_of_charger) AS listed,
       (SELECT count(*) FROM due d CROSS JOIN list_of_charger l ON l.partner = d.partner
            AND l.charger_id = d.charger_id AND l.seq = d.seq) AS correct
UNION ALL
SELECT 'list_of_vehicle', (SELECT count(*) FROM due), (SELECT count(*) FROM list_of_vehicle),
       (SELECT count(*) FROM due d CROSS JOIN list_of_vehicle l ON l.partner = d.partner
            AND l.vehicle_id = d.vehicle_id AND l.seq = d.seq)
UNION ALL
SELECT 'list_by_time', (SELECT count(*) FROM due), (SELECT count(*) FROM list_by_time),
       (SELECT count(*) FROM due d CROSS JOIN list_by_time l ON l.partner = d.partner
            AND l.vehicle_id = d.vehicle_id AND l.at_ms = d.at_ms AND l.seq = d.seq);
