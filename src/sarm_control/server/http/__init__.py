"""The HTTP side: requests in the forms that engines send, who may ask, and answers in the same form."""
