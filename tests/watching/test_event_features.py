"""Users of now are looked at with what their events say beside their items, as those of the reference were."""

from __future__ import annotations

from pathlib import Path

from asking.logs import HEADER, log_rows, prepared, write_models
from data.prepare.logs import write_csv
from peterrec.serving.files import AnswerOptions, open_question
from peterrec.watching.drift import _encoded


def test_events_are_read_as_they_were_prepared(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", log_rows(), HEADER)
    corpus = prepared(tmp_path, log, {"columns.features": ["n", "time:gap"]})
    backbone, bundles = write_models(tmp_path, corpus)
    expected = {}
    for part in ("train", "valid", "test"):
        users = corpus.task("group").part(part)  # type: ignore[arg-type]
        for row, user in enumerate(users.user_ids.to_pylist()):
            expected[user] = users.sequences.take([row])  # type: ignore[arg-type]
    looked_at = 0
    with open_question(backbone, bundles["group"], str(log), None, AnswerOptions(), {}) as question:
        for ids, sequences, _ in _encoded(question):
            for row, user in enumerate(ids):
                of_user = sequences.take([row])  # type: ignore[arg-type]
                if user in expected:
                    assert of_user.items.tolist() == expected[user].items.tolist()
                    assert of_user.features.tolist() == expected[user].features.tolist()  # type: ignore[union-attr]
                    looked_at += 1
    assert looked_at == len(expected) == 60
