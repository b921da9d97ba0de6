"""The shell: read, normalise, order, track, judge, write."""
