"""The subcommands of `tether`: a module for each.

Imports domain, files, simulator, client, server and cli. Never imports http.
"""
