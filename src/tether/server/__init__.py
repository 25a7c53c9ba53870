"""The running server: settings, bootstrap, processes, the wire, keys, rate limits, logs, metrics.

Imports domain and storage; bootstrap alone puts all parts together. Never imports cli or client.
"""
