"""SQLite: one file, one writer thread, reads in the event loop. Its backup and restore.

Imports domain and storage. Only bootstrap, maintenance and the CLI's checks import it.
"""
