-- Of each vehicle whose older events have expired: what they had made of it, from which it is derived.

CREATE TABLE snapshots (
    partner    BIGINT NOT NULL,
    vehicle_id {text} NOT NULL,
    at_ms      BIGINT NOT NULL,  -- events before that mean nothing any more
    body       {text} NOT NULL,  -- the last session by then, and what it knows of before, as JSON
    PRIMARY KEY (partner, vehicle_id)
) {clustered};
