"""Sessions and live states follow the event log: when they are derived, and from what.

Imports domain and storage. Never imports http, cli, client, ingest or server.
"""
