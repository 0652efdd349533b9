"""Judging one trained model.

Causal evaluation, its calibration, and what is measured beside the loss.
"""
