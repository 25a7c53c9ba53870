"""Derives sessions and states from the event log; capacity and sums; expiring and erasing.

Imports domain and storage. Never imports http, cli, client, ingest or server.
"""
