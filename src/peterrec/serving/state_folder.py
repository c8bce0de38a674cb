"""Names of the files and folders in a folder of state, and of the one below a shared bundle root."""

from __future__ import annotations

EVENTS = "events.sqlite"
JOURNAL = "bundles.json"  # which bundles operators loaded
COPIES = "bundles"  # folder of these, by name and version
SHARED_COPIES = ".peterrec-versions"  # folder below a bundle root that replicas share: by registry, name and version
REGISTRY = "workers.json"  # which bundles answer, while several workers run
WORKER_METRICS = "worker-metrics"  # folder of their counters
LOADING = "loading.lock"  # of the worker that loads the backbone
LOCK = "lock"  # of the service that uses the folder
