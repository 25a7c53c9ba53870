-- The events of a charger and of a vehicle, in the order of commits, and of a vehicle in the order of
-- time. Here they are found in the indexes of events: see 0003_lists.sqlite.sql and decision 18.

CREATE VIEW charger_events AS
SELECT partner, charger_id, seq, type, vehicle_id, at_ms, body FROM events;

CREATE VIEW vehicle_events AS
SELECT partner, vehicle_id, seq, type, charger_id, at_ms, body FROM events;

CREATE VIEW vehicle_history AS
SELECT partner, vehicle_id, at_ms, type, charger_id, stamp, seq, body FROM events;
