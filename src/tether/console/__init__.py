"""The web console: pages for people, at `/console`, over the store and the rules that the API has.

It uses `domain`, `server` and what these are made of; never `http`, `cli` or `client`. Pages are
rendered here and need no JavaScript to show their data; scripts and styles are in `http/static`.
"""
