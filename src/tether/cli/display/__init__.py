"""What people see in a terminal: tables, progress, pairs; safe for whatever an id contains.

Imports domain and cli. Never imports http, storage, server or client.
"""
