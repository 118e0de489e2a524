"""The controlled reward as every adapter opens it, asks it and keeps its state."""
