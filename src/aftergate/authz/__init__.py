"""Policies, decisions, transactions, tasks: what may happen, as functions of their arguments."""
