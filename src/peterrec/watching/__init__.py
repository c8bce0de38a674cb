"""Models that are in use, watched: the verb `drift`."""
