"""Texts into trunk states, kept on disk between builds."""
