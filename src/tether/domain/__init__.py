"""The rules, pure: what a charger, a vehicle and an event are, what is valid, what events mean.

Imports nothing of ours, and does no I/O. Clocks and ids are passed in: `now_ms` of `timestamps` is
for those who pass one. Every room may import it.
"""
