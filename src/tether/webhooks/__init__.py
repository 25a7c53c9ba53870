"""Webhooks: partners are called back with what happened, in the order of their log.

Lives here: who delivers what when, the requests to endpoints, and where these may not go. It may
import domain, storage, projections and the store; never http, console, cli or client.
"""
