"""The words, without a server."""
