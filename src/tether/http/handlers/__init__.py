"""What answers each route: reads the request, asks the store, shows the result.

Imports what http imports. app.py has all routes on one page.
"""
