"""Output in a terminal: tables, progress, charts; control characters in ids do no harm.

Imports domain and cli. Never imports http, storage, server or client.
"""
