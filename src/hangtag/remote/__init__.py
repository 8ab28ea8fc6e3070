"""Taggers that work elsewhere: behind a server, or in the workers of a cluster."""
