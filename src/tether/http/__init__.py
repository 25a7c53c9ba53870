"""The HTTP API: routes (`app.py`), middleware, handlers, reading requests, errors, OpenAPI.

Imports domain, ingest, projections, storage and server (metrics, authenticator, store).
Never imports cli or client. Nothing but server.bootstrap imports it.
"""
