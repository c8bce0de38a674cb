"""Files in, index sequences out. Knows no networks."""
