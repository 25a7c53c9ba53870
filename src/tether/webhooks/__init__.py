"""Delivers webhooks: schedule, messages, requests to endpoints, and addresses that are forbidden.

Imports domain, storage, projections and the store; never http, console, cli or client. How partners
set up their webhooks is in `server/webhooks.py`.
"""
