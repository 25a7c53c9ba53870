"""The rules, pure: what a charger, a vehicle and an event are, what is valid, what events mean.

Imports nothing of ours, and does no I/O. Clocks and ids are passed in. Every room may import it.
"""
