"""Chargers, vehicles, events and sessions in files: CSV, NDJSON, Parquet, in and out.

Imports domain and ingest's JSON reader. Never imports http, storage, server, cli or client.
"""
