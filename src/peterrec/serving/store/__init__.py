"""Where the events of users are kept."""
