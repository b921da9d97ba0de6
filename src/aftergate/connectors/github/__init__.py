"""See normalise.py."""
