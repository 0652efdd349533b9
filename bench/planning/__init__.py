"""Predict FLOPs, memory, hours and disk of cells, before a run and during it."""
