"""Trunk states of texts, cached on disk between builds."""
