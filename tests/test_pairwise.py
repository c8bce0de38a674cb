"""The choice of cases covers what it says."""

from __future__ import annotations

from itertools import combinations, product

from contracts import BACKBONES, PATCHES, pairs_of_backbone_and_patch
from pairwise import pairwise


def test_every_pair_of_values_is_met_by_few_of_all_combinations():
    cases = list(product("abc", "xyz", range(3), (True, False)))
    chosen = pairwise(cases, lambda case: list(enumerate(case)), full=False)
    assert len(chosen) < len(cases) / 4
    for first, second in combinations(range(4), 2):
        values = {(case[first], case[second]) for case in chosen}
        assert values == {(case[first], case[second]) for case in cases}
    assert pairwise(cases, lambda case: list(enumerate(case)), full=True) == cases


def test_every_patch_and_on_every_backbone_every_kind_at_every_place_is_among_the_cases():
    cases = pairs_of_backbone_and_patch(full=False)
    assert {patch for _, patch in cases} == set(PATCHES)
    places = {
        (backbone, config.kind, config.insertion, config.position)
        for backbone, config in ((name, PATCHES[patch]) for name, patch in cases)
    }
    assert len(places) == len(BACKBONES) * len({(c.kind, c.insertion, c.position) for c in PATCHES.values()})
    assert len(cases) < len(BACKBONES) * len(PATCHES) / 2
    assert len(pairs_of_backbone_and_patch(full=True)) == len(BACKBONES) * len(PATCHES)
