-- New sessions go to the end of the table, which has the primary key beside it as an index. In the
-- order of that key they went between those of other vehicles, split pages and moved the rows around
-- them: half of all pages that deriving wrote for the sessions.
CREATE TABLE appended_sessions (
    partner    BIGINT NOT NULL,
    vehicle_id TEXT NOT NULL,
    start_ms   BIGINT NOT NULL,
    start_rank BIGINT NOT NULL,
    charger_id TEXT NOT NULL,
    id         TEXT NOT NULL,
    live       BIGINT NOT NULL,
    end_ms     BIGINT,
    span       BIGINT,
    rest_ms    BIGINT,
    last_seq   BIGINT NOT NULL,
    here_seq   BIGINT NOT NULL,
    body       TEXT NOT NULL,
    before     TEXT NOT NULL,
    PRIMARY KEY (partner, vehicle_id, start_ms, start_rank, charger_id)
);
INSERT INTO appended_sessions SELECT * FROM sessions;
DROP TABLE sessions;
ALTER TABLE appended_sessions RENAME TO sessions;
CREATE UNIQUE INDEX sessions_by_id ON sessions (partner, id);
CREATE INDEX sessions_by_start ON sessions (partner, start_ms, id);
CREATE INDEX sessions_of_charger ON sessions (partner, charger_id, start_ms, id);
CREATE INDEX sessions_active ON sessions (partner, start_ms, id)
    WHERE end_ms IS NULL AND live = 1;
CREATE INDEX sessions_active_at_charger ON sessions (partner, charger_id, start_ms, id)
    WHERE end_ms IS NULL AND live = 1;
CREATE INDEX sessions_ended_at_charger ON sessions (partner, charger_id, rest_ms)
    WHERE end_ms IS NOT NULL AND live = 1;
CREATE INDEX sessions_by_span ON sessions (partner, span, start_ms)
    WHERE end_ms IS NOT NULL AND live = 1;
