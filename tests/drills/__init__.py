"""Tests that only `make drill` runs, because they take minutes or need much."""
