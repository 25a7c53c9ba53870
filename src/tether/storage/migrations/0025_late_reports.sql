-- The rules by which events make sessions have changed: all are derived again, as after migration 8.
UPDATE derivations SET seq = 0, mark = 0;
