"""The HTTP side: who may ask, and requests and answers in the forms of the engines."""
