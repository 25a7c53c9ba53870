"""PostgreSQL: many processes and machines on one database. The engine, its pools, and checks.

Imports domain and storage. Only server.databases imports it.
"""
