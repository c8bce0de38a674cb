"""The promise of docs/paper.md: of each statement, a test that fails when the function does not hold it."""

from __future__ import annotations

from paper import comparison, patches, pretraining, transfer
from paper.mutation import Mutation

MUTATIONS: dict[str, list[Mutation]] = {
    **pretraining.MUTATIONS,
    **transfer.MUTATIONS,
    **patches.MUTATIONS,
    **comparison.MUTATIONS,
}
"""By the beginning of a statement: what breaks the code that has it."""
