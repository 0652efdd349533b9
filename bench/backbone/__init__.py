"""The one decoder that every router stands in.

Layers, paths, and the dispatcher that runs a plan.
"""
