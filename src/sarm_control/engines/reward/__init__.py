"""The controlled reward behind every adapter: opening it from files, scoring, and keeping its state."""
