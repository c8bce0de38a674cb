"""Tables, figures and pages of what runs and grids recorded; computes and trains nothing."""
