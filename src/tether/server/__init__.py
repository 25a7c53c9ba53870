"""The running server: settings, bootstrap, processes, the wire, logs, metrics, maintenance.

Imports domain and storage; bootstrap alone puts all parts together. Never imports cli or client.
"""
