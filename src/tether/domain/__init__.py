"""Pure rules: models, validation, errors, keys, and what events mean (sessions, states, sums).

Does no I/O and imports no other room; clocks and ids are passed in. Every room may import it.
"""
