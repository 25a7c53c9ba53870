"""The web console at `/console`: routes (`app.py`), pages, templates, sign-in.

Imports domain, projections, storage and server; never http, cli or client. Scripts and styles are
in `http/static`; pages show their data without JavaScript.
"""
