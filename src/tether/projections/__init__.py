"""Derives sessions and states from the event log; computes capacity and sums; removes old events.

Imports domain and storage. Never imports http, cli, client, ingest or server.
"""
