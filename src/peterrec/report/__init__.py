"""Tables, figures and pages of runs and grids, from their records; computes and trains nothing."""
