"""Grids of experiments: planned as cells and computed one by one."""
