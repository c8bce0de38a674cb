"""Answers for users: from files and streams now; a service later. Imports neither training nor experiments."""
