"""Spark answers numbers as the verb on files does: of one bundle, and of several in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.data.number_outputs import NumberOutputs
from peterrec.errors import ConfigError
from peterrec.serving.files import AnswerOptions
from peterrec.serving.files import predict as local_predict
from peterrec.spark import predict
from spark_answers import assert_equal_rows

pytestmark = [
    pytest.mark.spark,
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # py4j leaves them to the garbage collector
]

SPEND = NumberOutputs("log1p", 3.0, 1.5, (0.1, 0.5, 0.9), (2.0, 20.0, 90.0))
YEARS = NumberOutputs("none", 40.0, 12.0, (), (41.5,))
ROWS = [("a", ["item-1", "item-2"]), ("b", ["nowhere"]), ("c", []), ("d", [f"item-{i}" for i in range(12)])]
OPTIONS = AnswerOptions(allow_empty=True)


@pytest.mark.slow
def test_numbers_of_one_bundle_and_of_several(spark: Any, tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    backbone, spend, years, age = (tmp_path / name for name in ("backbone", "spend", "years", "age"))
    save_backbone(backbone, pretrained)
    save_bundle(spend, tiny_bundle(pretrained, numbers=SPEND, name="spend"))
    save_bundle(years, tiny_bundle(pretrained, numbers=YEARS, name="years", seed=3))
    save_bundle(age, tiny_bundle(pretrained))
    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n".join(json.dumps({"user": user, "items": items}) for user, items in ROWS))
    dataframe = spark.createDataFrame(ROWS, "user string, items array<string>")
    table = local_predict(backbone, spend, lines, options=OPTIONS)
    answers = predict(dataframe, backbone, spend, OPTIONS)
    assert answers.columns == table.column_names == ["user", "prediction", "known_events", "q0.1", "q0.5", "q0.9"]
    assert_equal_rows([row.asDict(recursive=True) for row in answers.collect()], table.to_pylist())
    stacked = predict(dataframe, backbone, [spend, years], OPTIONS).collect()
    by_bundle = {(row["user"], row["bundle"]): row for row in stacked}
    for row in table.to_pylist():
        answer = by_bundle[row["user"], "spend"]
        assert answer["prediction"] == pytest.approx(row["prediction"])
        assert answer["quantiles"] == pytest.approx({name: row[name] for name in ("q0.1", "q0.5", "q0.9")})
    assert by_bundle["b", "years"]["prediction"] == 41.5
    assert by_bundle["b", "years"]["quantiles"] == {}
    with pytest.raises(ConfigError, match="bundles of classes, numbers and labels have other columns"):
        predict(dataframe, backbone, [spend, age], OPTIONS)
