"""Grids of experiments: planned as cells, computed one by one, analysed and told in one report."""
