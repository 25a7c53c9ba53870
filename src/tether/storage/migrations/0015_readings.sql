-- What the events of a session read, as JSON in their order: how many ms after its start, the state of
-- charge, the power. NULL where there are very many, or a version before this one wrote it.
ALTER TABLE sessions ADD COLUMN seen {text};
-- How the vehicle of a session that has ended was, step by step: what past moments are made of. NULL where
-- that is long, or not known. See decision 34.
ALTER TABLE sessions ADD COLUMN course {text};
-- Past moments of a charger read nothing else.
DROP INDEX sessions_of_charger;
CREATE INDEX sessions_of_charger ON sessions
    (partner, charger_id, start_ms, id, live, end_ms, vehicle_id, start_rank, course);
-- All are derived again, with that.
UPDATE derivations SET seq = 0, mark = 0;
