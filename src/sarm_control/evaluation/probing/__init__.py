"""Probes of edits on answers: rewards before and after, and the exact change."""
