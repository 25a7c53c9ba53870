-- A vehicle's sessions are found in the order of their start by the primary key already.
DROP INDEX sessions_of_vehicle;

