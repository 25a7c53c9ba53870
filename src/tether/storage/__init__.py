"""Where Tether keeps what it is told: a file for each subject, with its SQL, on two engines.

Imports domain. Never imports ingest, projections, http, cli, client or server.
"""
