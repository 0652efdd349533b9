"""Run cells. A cell is one router at one seed, budget and match, and leaves one record."""
