"""The report of a grid of cells."""
