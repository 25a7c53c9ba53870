"""From bytes to a durable event: reads JSON strictly, reads bulk bodies, writes events in batches.

Imports domain and storage. Never imports http, cli, client or server.
"""
