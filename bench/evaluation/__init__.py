"""Judging one trained model: causal evaluation, its calibration, and what is measured beside the loss."""
