"""For those who work on Aftergate: generated docs."""
