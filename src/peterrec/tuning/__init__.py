"""Searching for settings: the verb `tune`."""
