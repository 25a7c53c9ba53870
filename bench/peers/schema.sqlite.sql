-- The peers' database on SQLite: what the API has to answer, and no more.
PRAGMA journal_mode = WAL;

CREATE TABLE api_keys (
    hash    TEXT PRIMARY KEY,       -- SHA-256 of the key, in hexadecimal
    partner TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE chargers (
    partner TEXT NOT NULL,
    id      TEXT NOT NULL,
    body    TEXT NOT NULL,          -- the JSON that GET answers
    PRIMARY KEY (partner, id)
) WITHOUT ROWID;

CREATE TABLE vehicles (
    partner TEXT NOT NULL,
    id      TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (partner, id)
) WITHOUT ROWID;

CREATE TABLE events (
    seq             INTEGER PRIMARY KEY, -- the rowid: the order of arrival
    partner         TEXT NOT NULL,
    id              TEXT NOT NULL,
    type            TEXT NOT NULL,
    charger_id      TEXT NOT NULL,
    vehicle_id      TEXT NOT NULL,
    state_of_charge REAL,           -- %
    timestamp       INTEGER NOT NULL, -- ms since 1970
    UNIQUE (partner, id),
    -- The identity. Time comes first: so it is found by time, too, and grows at its end.
    UNIQUE (partner, timestamp, vehicle_id, type, charger_id)
);

CREATE INDEX events_of_partner ON events (partner, seq);
CREATE INDEX events_of_charger ON events (partner, charger_id, seq);
CREATE INDEX events_of_vehicle ON events (partner, vehicle_id, seq);
