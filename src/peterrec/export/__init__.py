"""Graphs of a backbone and its bundles for other runtimes."""
