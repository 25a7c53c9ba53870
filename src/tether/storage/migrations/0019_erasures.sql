-- Chargers and vehicles that are being erased: what is here is taken up again after a crash.

CREATE TABLE erasures (
    partner  BIGINT NOT NULL,
    kind     {text} NOT NULL,  -- the table it was in
    code     {text} NOT NULL,  -- the bytes of its id in hexadecimal: the id shall be nowhere any more
    begun_ms BIGINT NOT NULL,
    PRIMARY KEY (partner, kind, code)
) {clustered};

CREATE INDEX withdrawals_of_vehicle ON withdrawals (partner, vehicle_id, seq);
CREATE INDEX withdrawals_of_charger ON withdrawals (partner, charger_id, seq);
