"""The subcommands of `tether`, a module each.

Imports domain, files, simulator, client, server and cli. Never imports http.
"""
