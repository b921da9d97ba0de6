"""Detections: `NAME.py` (the rule) and `NAME.cases.yaml` (events in, findings out), found by looking in the folder."""
