"""The HTTP edge: routes, what surrounds every request, handlers, the reference pages.

Imports domain, ingest, storage, and of server what it is given: metrics, authenticator, limits.
Never imports cli or client. Nothing but server.bootstrap imports it.
"""
