-- Events that were taken back. Each is an entry of the partner's log, with a number of its own in the
-- order of commits: so followers are told of it, and what is derived is derived again from there on.

CREATE TABLE withdrawals (
    partner    BIGINT NOT NULL,
    seq        BIGINT NOT NULL,   -- in one row of numbers with those of events
    id         {text} NOT NULL,   -- of the event, which is in no other table any more
    event_seq  BIGINT NOT NULL,   -- the number that the event had, for those who remember its id
    type       {text} NOT NULL,
    charger_id {text} NOT NULL,
    vehicle_id {text} NOT NULL,
    at_ms      BIGINT NOT NULL,   -- the timestamp of the event
    body       {text} NOT NULL,   -- the JSON that followers get
    PRIMARY KEY (partner, seq)
) {clustered};

CREATE UNIQUE INDEX withdrawals_by_id ON withdrawals (partner, id);
