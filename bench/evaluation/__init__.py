"""Evaluate one trained model: calibration, causal loss at B, and other measurements."""
