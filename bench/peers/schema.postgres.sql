-- The peers' database on PostgreSQL: what the API has to answer, and no more.
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
    seq             bigint GENERATED ALWAYS AS IDENTITY, -- the order of arrival
    id              uuid NOT NULL DEFAULT uuidv7(),
    type            text NOT NULL,
    charger_id      text NOT NULL,
    vehicle_id      text NOT NULL,
    state_of_charge double precision, -- %
    timestamp       timestamptz NOT NULL,
    PRIMARY KEY (partner, seq),
    UNIQUE (partner, id),
    -- The identity. Time comes first: so it is found by time, too, and grows at its end.
    UNIQUE (partner, timestamp, vehicle_id, type, charger_id)
);

CREATE INDEX events_of_charger ON events (partner, charger_id, seq);
CREATE INDEX events_of_vehicle ON events (partner, vehicle_id, seq);
