-- What the keys did, by the hour, for some days: counted by the servers and written behind, so a
-- server that is killed takes some seconds of it along. The row of no key has the partner's events.

CREATE TABLE key_hours (
    partner BIGINT NOT NULL,
    hour    BIGINT NOT NULL,  -- since 1970
    key     {text} NOT NULL,  -- the key's SHA-256
    calls   BIGINT NOT NULL,
    refused BIGINT NOT NULL,  -- of the calls
    limited BIGINT NOT NULL,  -- … and of these for the key's rate
    events  BIGINT NOT NULL,  -- that were stored
    slot    BIGINT NOT NULL,  -- when the next two were written, in steps of ten seconds
    in_slot BIGINT NOT NULL,  -- what the key used in the busiest window of its rate, all workers together
    busiest BIGINT NOT NULL,  -- the greatest in_slot of the hour
    PRIMARY KEY (partner, hour, key)
) {clustered};
