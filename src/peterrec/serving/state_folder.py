"""Names of the files and folders in a folder of state."""

from __future__ import annotations

EVENTS = "events.sqlite"
JOURNAL = "bundles.json"  # which bundles operators loaded
COPIES = "bundles"  # folder of these, by name and version
LOCK = "lock"  # of the service that uses the folder
