"""The HTTP reward service: one controlled reward for many engines; needs the extra `serve`."""
