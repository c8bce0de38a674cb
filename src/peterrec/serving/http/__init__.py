"""The service: HTTP in front of the engine, the users and their events."""
