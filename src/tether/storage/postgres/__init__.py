"""PostgreSQL: many processes and machines on one database. Its pools and batch loader.

Imports domain and storage. Only bootstrap, maintenance and the CLI's checks import it.
"""
