-- The peers' database on PostgreSQL: what POST /events needs, and no more.
CREATE TABLE api_keys (
    hash    text PRIMARY KEY,       -- SHA-256 of the key, in hexadecimal
    partner text NOT NULL
);

CREATE TABLE chargers (
    partner text NOT NULL,
    id      text NOT NULL,
    body    jsonb NOT NULL,         -- what GET answers
    PRIMARY KEY (partner, id)
);

CREATE TABLE vehicles (
    partner text NOT NULL,
    id      text NOT NULL,
    body    jsonb NOT NULL,
    PRIMARY KEY (partner, id)
);

CREATE TABLE events (
    partner         text NOT NULL,
    id              uuid NOT NULL DEFAULT uuidv7(),
    type            text NOT NULL,
    charger_id      text NOT NULL,
    vehicle_id      text NOT NULL,
    state_of_charge double precision, -- %
    timestamp       timestamptz NOT NULL,
    PRIMARY KEY (partner, id)
);
