"""Simulated fleets, and real charging sessions to replay.

Imports domain. Never imports http, storage, server, cli or client.
"""
