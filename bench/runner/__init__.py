"""Running cells: a cell is one router at one seed, budget and match; it leaves one record."""
