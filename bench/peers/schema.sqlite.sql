-- The peers' database on SQLite: what POST /events needs, and no more.
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
    partner         TEXT NOT NULL,
    id              TEXT NOT NULL,
    type            TEXT NOT NULL,
    charger_id      TEXT NOT NULL,
    vehicle_id      TEXT NOT NULL,
    state_of_charge REAL,           -- %
    timestamp       INTEGER NOT NULL, -- ms since 1970
    PRIMARY KEY (partner, id)
) WITHOUT ROWID;
