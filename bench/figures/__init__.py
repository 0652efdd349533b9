"""Draw the figures of boards and studies with seaborn, as SVG for light and dark."""
