"""`fetch` from a file at hand, and `run`: the whole job from one YAML file."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from peterrec.cli.main import execute

from .conftest import Job

TA_FENG = """TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE
11/1/2000,00000001,25-29,115,530101,0001,1,10,12
11/2/2000,00000001,25-29,115,530101,0002,1,10,12
11/2/2000,00000002,30-34,115,100101,0003,2,20,22
"""


def test_fetch_from_a_file_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "ta_feng.csv", tmp_path / "out"
    file.write_text(TA_FENG)
    assert execute(["fetch", "ta-feng", "--from", str(file), "-o", str(out)]) == 0
    assert "holds 3 events of 2 users with 3 items" in capsys.readouterr().err
    assert pq.read_table(out / "events.parquet")["user_id"].to_pylist() == ["00000001", "00000001", "00000002"]
    assert execute(["fetch", "ta-feng", "--from", str(file), "-o", str(out)]) == 0
    assert "it is used as it is" in capsys.readouterr().err
    assert execute(["fetch", "netflix"]) == 2
    assert "choose one of: ml-1m, ta-feng" in capsys.readouterr().err


@pytest.mark.slow
def test_run_does_everything_and_says_what_to_try_next(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "prepare": {
            "events": {"paths": [job.events], "domain": "domain"},
            "source": {"exclude_domains": ["target"]},
            "tasks": [{"kind": "ranking", "name": "shop", "domains": ["target"]}],
        },
        "pretrain": {"backbone": {"channels": 8, "dilations": [1]}, "epochs": 1},
        "adapt": {"epochs": 1},
        "strategies": ["patch"],
        "evaluate": {"bootstrap": 20},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "out"), "--set", "title=Ours"]
    assert execute(arguments) == 0
    out = capsys.readouterr()
    assert f"The report is {tmp_path / 'out' / 'report.html'}" in out.out
    assert f"Try next: peterrec inspect {tmp_path / 'out'}/bundles/shop/patch" in out.out
    assert "[evaluate shop]" in out.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1" in page
    assert "Ours" in page
    assert "--set title=Ours" in page
    assert execute([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
