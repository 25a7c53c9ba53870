"""The handlers of the routes: each reads the request, asks the store and makes the answer.

They import what http imports. `app.py` maps every route to its handler.
"""
