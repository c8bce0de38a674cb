"""Answers about users, by files or by a service. Imports neither training nor experiments."""
