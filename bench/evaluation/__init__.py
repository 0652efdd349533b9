"""Evaluate one trained model: calibration, causal loss at B, and measurements beside the loss."""
