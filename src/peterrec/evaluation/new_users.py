"""Which test users are new to a backbone: no event of theirs was in its pre-training."""

from __future__ import annotations

import numpy as np

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.data.corpus import Corpus, Task
from peterrec.data.hashing import id_hash
from peterrec.data.new_users import kept_out_by_id
from peterrec.evaluation.results import PretrainingOverlap


def pretraining_overlap(corpus: Corpus, task: Task, pretrained: PretrainedBackbone) -> PretrainingOverlap:
    """Count the test users of a task that were kept out of pre-training, that were in it, and that may have been.

    On the corpus of pre-training all is known. Of another corpus or split, the settings that the user id decides tell
    who was kept out; whether anybody else was among the users of pre-training is not known, as a backbone keeps no
    list of them, and neither is who was kept out by the time of the first event.
    """
    hashes = id_hash(task.part("test").user_ids.to_pylist())
    if pretrained.training.get("corpus_fingerprint") == corpus.manifest["fingerprint"]:
        new = int(np.isin(hashes, np.asarray(corpus.user_hashes)[corpus.new_users]).sum())
        return PretrainingOverlap(new=new, pretrained=len(hashes) - new, unknown=0)
    config = pretrained.new_users
    new = 0 if config is None else int(kept_out_by_id(hashes, config, config.split).sum())
    return PretrainingOverlap(new=new, pretrained=0, unknown=len(hashes) - new)


def describe_overlap(overlap: PretrainingOverlap) -> str:
    """Return the counts as a sentence without its full stop."""
    users, clauses = overlap.new + overlap.pretrained + overlap.unknown, []
    if overlap.new:
        clauses.append(f"{overlap.new:,} of {users:,} test users are new: no event of theirs was in pre-training")
    if overlap.pretrained:
        clauses.append(f"{overlap.pretrained:,} of {users:,} test users were pre-trained on without their labels")
    if overlap.unknown:
        clauses.append(
            f"whether {overlap.unknown:,} of {users:,} test users were pre-trained on is not known: this is another "
            "corpus than that of pre-training"
        )
    return "; ".join(clauses)
