"""Readings over HTTP: batching, the ASGI app, the server, a client."""
