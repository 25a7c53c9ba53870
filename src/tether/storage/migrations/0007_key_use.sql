-- When a key was used last, to some seconds, and the address it was used from.
ALTER TABLE keys ADD COLUMN last_used_ms BIGINT;
ALTER TABLE keys ADD COLUMN last_used_from {text};
