"""Stores of the events of users."""
