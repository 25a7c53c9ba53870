"""SQLite: one file, one writer thread, reads in the event loop. Its backup and restore.

Imports domain and storage. Only server.databases imports it.
"""
