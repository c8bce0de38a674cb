"""Agreement of several services (replicas) on which versions of bundles answer."""
