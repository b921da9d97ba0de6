"""Aftergate: what happens after login."""

__version__ = "0.1.0"
