-- What is derived from the events: see docs/decisions/0012. All of it can be derived again.

CREATE TABLE sessions (
    partner    BIGINT NOT NULL,
    vehicle_id {text} NOT NULL,
    start_ms   BIGINT NOT NULL,
    start_rank BIGINT NOT NULL,  -- orders what began in one millisecond
    charger_id {text} NOT NULL,
    id         {text} NOT NULL,
    live       BIGINT NOT NULL,  -- 0: a late event showed that there was no such session
    end_ms     BIGINT,           -- NULL while the vehicle is plugged in
    span       BIGINT,           -- the bits of its length in ms; NULL while the vehicle is plugged in
    rest_ms    BIGINT,           -- the instant of its newest event there, once it has ended
    last_seq   BIGINT NOT NULL,  -- its newest event
    here_seq   BIGINT NOT NULL,  -- its newest event that names this charger
    body       {text} NOT NULL,  -- the stay, and …
    before     {text} NOT NULL,  -- … what it knows of the time before it: see stays.py
    PRIMARY KEY (partner, vehicle_id, start_ms, start_rank, charger_id)
) {clustered};

CREATE UNIQUE INDEX sessions_by_id ON sessions (partner, id);
CREATE INDEX sessions_by_start ON sessions (partner, start_ms, id);
CREATE INDEX sessions_of_vehicle ON sessions (partner, vehicle_id, start_ms, id);
CREATE INDEX sessions_of_charger ON sessions (partner, charger_id, start_ms, id);
CREATE INDEX sessions_active ON sessions (partner, start_ms, id)
    WHERE end_ms IS NULL AND live = 1;
CREATE INDEX sessions_active_at_charger ON sessions (partner, charger_id, start_ms, id)
    WHERE end_ms IS NULL AND live = 1;
CREATE INDEX sessions_ended_at_charger ON sessions (partner, charger_id, rest_ms)
    WHERE end_ms IS NOT NULL AND live = 1;
-- Which lasted at a past moment? Those of a span began at most twice their length before it.
CREATE INDEX sessions_by_span ON sessions (partner, span, start_ms)
    WHERE end_ms IS NOT NULL AND live = 1;

-- Apart from the sessions, as it changes with each event: what an index names must stay the same
-- for PostgreSQL to change a row in place.
CREATE TABLE session_versions (
    partner    BIGINT NOT NULL,
    id         {text} NOT NULL,
    version    BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,  -- never smaller than what was committed before
    PRIMARY KEY (partner, id)
) {clustered};

CREATE INDEX session_versions_by_time ON session_versions (partner, updated_ms, id);

CREATE TABLE derivations (
    partner    BIGINT NOT NULL PRIMARY KEY,
    seq        BIGINT NOT NULL,  -- the last event that the sessions contain
    updated_ms BIGINT NOT NULL,  -- the newest in session_versions
    mark       BIGINT NOT NULL   -- another one after every change
) {clustered};

-- Sessions need the events of a vehicle in the order of time.
DROP INDEX events_by_identity;
CREATE UNIQUE INDEX events_by_identity
    ON events (partner, vehicle_id, at_ms, type, charger_id, stamp);
CREATE INDEX events_by_time ON events (partner, at_ms, seq);
