"""Decode token by token, with caches that hold the routed tokens alone."""
