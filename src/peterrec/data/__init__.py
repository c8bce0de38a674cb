"""Data: from files to sequences of indices, without networks."""
