"""HTTP: routes found by folder, one guard for all of them, and a raw path for decisions."""
