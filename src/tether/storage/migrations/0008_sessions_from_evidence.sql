-- The rules by which events make sessions have changed: all are derived again, from the first event on.
-- They stay until then, so that those who follow the changes are told of what differs. Another mark, so
-- that whoever derives at this moment begins anew.
UPDATE derivations SET seq = 0, mark = 0;
