"""peterrec: one user model, reused for many tasks."""
