-- {text} and {clustered} are the two words in which the engines differ: see store/dialect.py.

-- What the operator manages: small tables, read by every node, not partner data.

CREATE TABLE partners (
    id         BIGINT NOT NULL PRIMARY KEY,
    name       {text} NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL
) {clustered};

CREATE TABLE keys (
    digest        {text} NOT NULL PRIMARY KEY,  -- SHA-256 of the key, hexadecimal
    prefix        {text} NOT NULL,              -- the key's first characters, to show
    partner       BIGINT NOT NULL,
    name          {text} NOT NULL,
    rate_requests BIGINT NOT NULL,
    rate_window_s BIGINT NOT NULL,
    burst         BIGINT NOT NULL,
    read_only     BIGINT NOT NULL,
    created_ms    BIGINT NOT NULL,
    expires_ms    BIGINT,
    revoked_ms    BIGINT
) {clustered};

CREATE INDEX keys_by_partner ON keys (partner);

-- Partner data: every primary key and every index begins with the partner.

CREATE TABLE chargers (
    partner BIGINT NOT NULL,
    id      {text} NOT NULL,
    version BIGINT NOT NULL,
    body    {text} NOT NULL,  -- the JSON that GET answers, to the byte
    PRIMARY KEY (partner, id)
) {clustered};

CREATE TABLE vehicles (
    partner BIGINT NOT NULL,
    id      {text} NOT NULL,
    version BIGINT NOT NULL,
    body    {text} NOT NULL,
    PRIMARY KEY (partner, id)
) {clustered};

CREATE TABLE events (
    partner    BIGINT NOT NULL,
    seq        BIGINT NOT NULL,   -- the order of commits
    id         {text} NOT NULL,
    type       {text} NOT NULL,
    charger_id {text} NOT NULL,
    vehicle_id {text} NOT NULL,
    at_ms      BIGINT NOT NULL,   -- the event's timestamp
    stamp      BIGINT NOT NULL,   -- 0 if the partner gave the timestamp, else seq: always new
    body       {text} NOT NULL,
    PRIMARY KEY (partner, seq)
) {clustered};

CREATE UNIQUE INDEX events_by_id ON events (partner, id);
-- Time comes first, as that is nearly the order of arrival: new entries go to the end of the index,
-- not all over it, and windows of time are found in it too.
CREATE UNIQUE INDEX events_by_identity
    ON events (partner, at_ms, vehicle_id, type, charger_id, stamp);
CREATE INDEX events_of_charger ON events (partner, charger_id, seq);
CREATE INDEX events_of_vehicle ON events (partner, vehicle_id, seq);
