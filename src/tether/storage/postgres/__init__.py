"""PostgreSQL: many processes and machines on one database. Its pools and batch loader.

Imports domain and storage. Only server.databases imports it.
"""
