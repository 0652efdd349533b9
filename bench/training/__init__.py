"""Training one model: the loop, its step, and what is made beside it.

Utility labels, supervision, backbones.
"""
