"""Reads and writes chargers, vehicles, events and sessions as CSV, NDJSON and Parquet.

Imports domain and ingest's JSON reader. Never imports http, storage, server, cli or client.
"""
