"""Observing a run: evaluations, the ledger of the reward's change, and monitors that warn."""
