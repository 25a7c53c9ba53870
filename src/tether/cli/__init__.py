"""The `tether` command: `commands/` has a module for each command, `display/` what they print.

It may import all rooms but http, console and webhooks. Only `tether/__main__.py`, which finds the
command, imports it.
"""
