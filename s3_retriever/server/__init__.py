"""An index behind HTTP: the server, its page, and the client that searches it from elsewhere."""
