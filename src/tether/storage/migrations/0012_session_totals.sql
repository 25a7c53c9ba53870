-- What sessions that have ended add to sums, as whole numbers, so that sums are made where sessions
-- are: energies in mWh, powers in mW, times in ms. All NULL where only the body tells it.
ALTER TABLE sessions ADD COLUMN energy BIGINT;
ALTER TABLE sessions ADD COLUMN estimated BIGINT;   -- the part of it that was not reported
ALTER TABLE sessions ADD COLUMN charged BIGINT;     -- the time of charge periods
ALTER TABLE sessions ADD COLUMN measured BIGINT;    -- that of those whose energy is known
ALTER TABLE sessions ADD COLUMN unmeasured BIGINT;  -- how many others there are
ALTER TABLE sessions ADD COLUMN power BIGINT;       -- the highest; NULL if none was told
ALTER TABLE sessions ADD COLUMN charge_ms BIGINT;   -- from when …
ALTER TABLE sessions ADD COLUMN stop_ms BIGINT;     -- … to when it charged, where that is one time
-- Sums read nothing else, and nothing else reads it: no other statement asks for `live + 0 = 1`, so the
-- plan of none changes.
CREATE INDEX sessions_in_sums ON sessions (partner, start_ms, end_ms, energy, estimated, charged,
    measured, unmeasured, power, charge_ms, stop_ms, vehicle_id, charger_id, start_rank, live)
    WHERE live + 0 = 1;
-- All are derived again, with that.
UPDATE derivations SET seq = 0, mark = 0;
