"""Event schema helpers: interning, time, enrichment, ordering, wire form."""
