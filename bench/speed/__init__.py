"""Measure the time of routers against a dense model, and where the time of a step goes."""
