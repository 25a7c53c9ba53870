"""Faults: real server processes that are killed, starved, stalled and refused."""
