"""Repositories: a file for each subject, with its SQL for both engines; migrations.

Imports domain. Never imports ingest, projections, http, cli, client or server.
"""
