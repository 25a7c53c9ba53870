-- For how long what is of a partner is kept, in ms. NULL: as the server's settings say, 0: for ever.

CREATE TABLE retention (
    partner     BIGINT NOT NULL PRIMARY KEY,
    events_ms   BIGINT,           -- ended sessions go with their events
    requests_ms BIGINT,           -- refused requests
    attempts_ms BIGINT,           -- attempts of webhooks
    horizon_ms  BIGINT,           -- no event with an earlier timestamp is taken; it only moves on
    expired_ms  BIGINT,           -- the horizon before which all that can go is gone
    lease_ms    BIGINT NOT NULL   -- so long a process that is at it needs nobody to do it as well
) {clustered};
