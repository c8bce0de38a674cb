"""A whole small job done once through the command line, for the tests of the verbs to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from peterrec.cli.main import execute
from peterrec.data.synthetic import synthetic

SMALL = ["--set", "backbone.channels=8", "--set", "backbone.dilations=[1,2]", "--set", "epochs=2", "--quiet"]


@dataclass(frozen=True)
class Job:
    """Where everything is."""

    root: Path

    @property
    def events(self) -> str:
        return str(self.root / "events.parquet")

    @property
    def users(self) -> str:
        return str(self.root / "users.parquet")

    @property
    def corpus(self) -> str:
        return str(self.root / "corpus")

    @property
    def backbone(self) -> str:
        return str(self.root / "backbone")

    def bundle(self, task: str, strategy: str = "patch") -> str:
        return str(self.root / f"{task}-{strategy}")


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    finished = Job(tmp_path_factory.mktemp("job"))
    data = synthetic(users=300, items=40, targets=12, mean_events=8, seed=1)
    pq.write_table(data.events, finished.events)
    pq.write_table(data.users, finished.users)
    tasks = ["--classify", f"{finished.users}:cluster", "--rank", "shop=target"]
    run(["prepare", finished.events, "--domain", "domain", *tasks, "--out", finished.corpus, "--quiet"])
    run(["pretrain", finished.corpus, "--out", finished.backbone, *SMALL])
    for task, strategy in (("cluster", "patch"), ("cluster", "head"), ("shop", "patch")):
        settings = ["--strategy", strategy, "--set", "epochs=2", "--set", "selection=valid", "--quiet"]
        run(["adapt", finished.backbone, finished.corpus, task, "--out", finished.bundle(task, strategy), *settings])
    return finished


def run(arguments: list[str]) -> None:
    assert execute(arguments) == 0, arguments
