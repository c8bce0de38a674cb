"""The verb `migrate`: bundles of an earlier backbone on the one that it became."""
