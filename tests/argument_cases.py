"""Public functions with arguments that are good, and kinds of values that each argument cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peterrec
from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Question, Request
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

# Kinds that some take and others do not.
LIST, TEXT, NONE, DICT, NUMBER = ["a"], "text", None, {"a": "b"}, 3
NO_PATH = [LIST, NONE, DICT, NUMBER]


class Artifacts:
    """Objects whose methods are called, and good arguments."""

    def __init__(self, folder: Path) -> None:
        pretrained = tiny_pretrained()
        self.model = UserModel(pretrained, "cpu")
        self.bundle = tiny_bundle(pretrained)
        self.model.add_bundle(self.bundle)
        self.model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(4, first=0)))
        self.engine = Engine(self.model)
        self.store = SqliteStore(folder / "events.sqlite", 10)
        self.nowhere = folder / "nowhere"


HISTORIES = [["item-1"]]
# Name, the call with arguments by name, the good ones, and kinds of the second list that are wrong for each.
Case = tuple[
    str, Callable[["Artifacts"], Callable[..., Any]], Callable[["Artifacts"], dict[str, Any]], dict[str, list[Any]]
]
CASES: list[Case] = [
    ("inspect", lambda m: peterrec.inspect, lambda m: {"path": m.nowhere}, {"path": [LIST, NONE, DICT, NUMBER]}),
    (
        "push",
        lambda m: peterrec.push,
        lambda m: {"path": m.nowhere, "repo_id": "a/b", "subfolder": None, "datasets": (), "token": None},
        {"path": NO_PATH, "repo_id": [LIST, NONE, DICT, NUMBER], "subfolder": [LIST, NUMBER],
         "datasets": [TEXT, NONE, DICT, [3]], "token": [LIST, NUMBER]},
    ),
    (
        "prepare",
        lambda m: peterrec.prepare,
        lambda m: {"events": ["x"], "out": m.nowhere, "users": "x", "classify": ["a"], "rank": "b", "regress": ["d"],
                   "multilabel": ["f"],
                   "label_user": "c", "history": "all"},
        {"events": [LIST, TEXT, NONE, DICT, NUMBER, HISTORIES, peterrec.AdaptConfig()], "out": [LIST, DICT, NUMBER],
         "users": [LIST, NONE, DICT, NUMBER], "classify": [NONE, NUMBER, [3], {"a": 3}], "rank": [NONE, [LIST]],
         "regress": [NONE, NUMBER, [3]], "multilabel": [NONE, NUMBER, [3]],
         "label_user": [LIST, NUMBER], "history": [LIST, NUMBER, TEXT]},
    ),
    (
        "fetch",
        lambda m: peterrec.fetch,
        lambda m: {"name": "x", "out": m.nowhere, "source_file": None, "report": None},
        {"name": [LIST, NONE, DICT, NUMBER], "out": [LIST, NONE, DICT, NUMBER], "source_file": [LIST, DICT, NUMBER],
         "report": [LIST, TEXT]},
    ),
    (
        "convert",
        lambda m: peterrec.convert,
        lambda m: {"format": "x", "paths": ["x"], "out": m.nowhere, "targets": None, "config": None},
        {"format": [LIST, NONE, DICT], "paths": [NONE, DICT, NUMBER, [3], [LIST]], "out": [LIST, NONE],
         "targets": [LIST], "config": [LIST, TEXT, DICT, peterrec.AdaptConfig()]},
    ),
    ("build_benchmark", lambda m: peterrec.build_benchmark,
     lambda m: {"out": m.nowhere, "data": m.nowhere, "labels": ["x"], "overwrite": False, "report": None},
     {"out": NO_PATH, "data": NO_PATH, "labels": [NONE, DICT, NUMBER, [3]], "report": [LIST, TEXT]}),
    ("score_benchmark", lambda m: peterrec.score_benchmark,
     lambda m: {"benchmark": m.nowhere, "task": "x", "scores": ["x"], "out": None},
     {"benchmark": NO_PATH, "task": NO_PATH, "scores": [NONE, DICT, NUMBER, [3]], "out": [LIST, DICT, NUMBER]}),
    ("predict_benchmark", lambda m: peterrec.predict_benchmark,
     lambda m: {"benchmark": m.nowhere, "task": "x", "backbone": m.nowhere, "out": m.nowhere, "bundle": None},
     {"benchmark": NO_PATH, "task": NO_PATH, "backbone": NO_PATH, "out": NO_PATH, "bundle": [LIST, DICT, NUMBER]}),
    (
        "pretrain",
        lambda m: peterrec.pretrain,
        lambda m: {"corpus": m.nowhere, "out": m.nowhere, "config": None},
        {"corpus": [LIST, NONE, DICT, NUMBER], "out": [LIST, NUMBER], "config": [LIST, TEXT, DICT,
         peterrec.AdaptConfig()]},
    ),
    (
        "adapt",
        lambda m: peterrec.adapt,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "task": "age", "out": m.nowhere, "config": None},
        {"backbone": [LIST, NONE, DICT], "corpus": [LIST, NONE], "task": [LIST, NONE, DICT, NUMBER],
         "out": [LIST, NUMBER], "config": [LIST, TEXT, DICT, peterrec.PretrainConfig()]},
    ),
    (
        "adapt_jointly",
        lambda m: peterrec.adapt_jointly,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "tasks": ["age"], "out": m.nowhere, "config": None},
        {"backbone": [LIST, NONE], "corpus": [LIST, NONE], "tasks": [TEXT, NONE, DICT, NUMBER, [3]],
         "out": [LIST, NONE], "config": [LIST, TEXT]},
    ),
    (
        "grow",
        lambda m: peterrec.grow,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "out": m.nowhere, "config": None},
        {"backbone": [LIST, NONE, DICT], "corpus": [LIST, DICT, NUMBER], "out": [LIST, NONE, NUMBER],
         "config": [LIST, TEXT, DICT, peterrec.AdaptConfig()]},
    ),
    (
        "grow_targets",
        lambda m: peterrec.grow_targets,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "task": "shop", "bundle": m.nowhere, "out": m.nowhere},
        {"backbone": [LIST, NONE, DICT], "corpus": [LIST, NONE, DICT], "task": [LIST, NONE, NUMBER],
         "bundle": [LIST, NONE, DICT, NUMBER], "out": [LIST, NONE, NUMBER]},
    ),
    (
        "merge_bundles",
        lambda m: peterrec.merge_bundles,
        lambda m: {"backbone": m.nowhere, "bundles": ["x", "y"], "out": m.nowhere, "method": "linear", "weights": None,
                   "density": 0.5},
        {"backbone": [LIST, NONE, DICT], "bundles": [TEXT, NONE, DICT, NUMBER, [3], ["x"]], "out": [LIST, DICT, NUMBER],
         "method": [LIST, NONE, TEXT], "weights": [TEXT, DICT, NUMBER, ["a"], [1.0]], "density": [TEXT, NONE, 2]},
    ),
    (
        "migrate",
        lambda m: peterrec.migrate,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "bundles": ["x"], "out": m.nowhere,
                   "previous": m.nowhere, "config": None},
        {"backbone": [LIST, NONE, DICT], "corpus": [LIST, NONE, DICT], "bundles": [TEXT, NONE, DICT, NUMBER, [3]],
         "out": [LIST, NONE, NUMBER], "previous": [LIST, NONE, NUMBER], "config": [LIST, TEXT, DICT,
         peterrec.AdaptConfig()]},
    ),
    (
        "tune",
        lambda m: peterrec.tune,
        lambda m: {"corpus": m.nowhere, "backbone": None, "out": m.nowhere, "task": None, "config": None,
                   "pretrain": {"epochs": [1, 2]}},
        {"corpus": [LIST, NONE, DICT, NUMBER], "backbone": [LIST, DICT, NUMBER], "out": [LIST, NONE, DICT, NUMBER],
         "task": [LIST, DICT, NUMBER], "config": [LIST, TEXT, DICT, peterrec.AdaptConfig()],
         "pretrain": [LIST, TEXT, NONE, NUMBER, DICT], "trials": [LIST, TEXT, NONE, DICT, 0]},
    ),
    (
        "evaluate",
        lambda m: peterrec.evaluate,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "bundles": ["x"], "out": None, "config": None},
        {"backbone": [LIST, NONE], "corpus": [LIST, NONE], "bundles": [NONE, NUMBER, [3], {"a": 3}, {3: "a"}],
         "out": [LIST, NUMBER], "config": [LIST, TEXT, DICT]},
    ),
    (
        "audit",
        lambda m: peterrec.audit,
        lambda m: {"backbone": m.nowhere, "corpus": m.nowhere, "attribute": "x", "bundles": ["x"], "out": None,
                   "config": None},
        {"backbone": [LIST, NONE], "corpus": [LIST, NONE], "attribute": [LIST, NONE, DICT, NUMBER],
         "bundles": [NONE, NUMBER, [3], {"a": 3}, {3: "a"}], "out": [LIST, NUMBER], "config": [LIST, TEXT, DICT]},
    ),
    (
        "run",
        lambda m: peterrec.run,
        lambda m: {"config": None, "out": m.nowhere},
        {"config": [LIST, TEXT, DICT], "out": [LIST, NONE]},
    ),
    (
        "experiment",
        lambda m: peterrec.experiment,
        lambda m: {"config": None, "out": m.nowhere, "jobs": None},
        {"config": [LIST, TEXT, DICT], "out": [LIST, NONE], "jobs": [LIST, TEXT]},
    ),
    (
        "serve",
        lambda m: peterrec.serve,
        lambda m: {"backbone": m.nowhere, "bundles": ["x"], "config": None},
        {"backbone": [LIST, NONE], "bundles": [TEXT, NONE, DICT, [3]], "config": [LIST, TEXT, DICT]},
    ),
    (
        "backup",
        lambda m: peterrec.backup,
        lambda m: {"state": m.nowhere, "out": m.nowhere},
        {"state": [LIST, NONE], "out": [LIST, NONE, NUMBER]},
    ),
    (
        "load_config",
        lambda m: peterrec.load_config,
        lambda m: {"cls": peterrec.AdaptConfig, "path": None, "overrides": []},
        {"cls": [LIST, TEXT, NONE, dict], "path": [LIST, NUMBER], "overrides": [TEXT, NONE, DICT, [3]]},
    ),
    (
        "predict",
        lambda m: peterrec.predict,
        lambda m: {"backbone": m.nowhere, "bundle": m.nowhere, "source": m.nowhere, "out": None, "options": None},
        {"backbone": [LIST, NONE], "bundle": [LIST, NONE], "out": [LIST],
         "options": [LIST, DICT, TEXT]},
    ),
    (
        "recommend",
        lambda m: peterrec.recommend,
        lambda m: {"backbone": m.nowhere, "bundle": None, "source": m.nowhere, "k": 3, "exclude_seen": True},
        {"backbone": [LIST, NONE], "bundle": [LIST], "k": [TEXT, LIST, NONE, True],
         "exclude_seen": [NUMBER, LIST, TEXT]},
    ),
    (
        "embed",
        lambda m: peterrec.embed,
        lambda m: {"backbone": m.nowhere, "source": m.nowhere, "bundle": None},
        {"backbone": [LIST, NONE], "bundle": [LIST]},
    ),
    (
        "drift",
        lambda m: peterrec.drift,
        lambda m: {"backbone": m.nowhere, "bundle": m.nowhere, "source": m.nowhere, "out": None, "level": 0.01},
        {"backbone": [LIST, NONE], "bundle": [LIST, NONE], "out": [LIST], "level": [TEXT, NONE, LIST],
         "seed": [TEXT, NONE]},
    ),
    (
        "export_model",
        lambda m: peterrec.export_model,
        lambda m: {"backbone": m.nowhere, "out": m.nowhere, "bundles": ["x"], "format": "torch", "overwrite": False},
        {"backbone": [LIST, NONE, DICT], "out": [LIST, NONE, DICT, NUMBER], "bundles": [TEXT, NONE, DICT, NUMBER, [3]],
         "format": [LIST, NONE, TEXT], "overwrite": [NONE, TEXT]},
    ),
    (
        "AnswerOptions",
        lambda m: peterrec.AnswerOptions,
        lambda m: {"events": None, "allow_empty": False, "unknown": None, "batch_size": 3, "precision": "fp32"},
        {"events": [LIST, DICT, TEXT], "allow_empty": [NONE, TEXT], "unknown": [LIST, NUMBER],
         "batch_size": [TEXT, NONE, True], "precision": [NONE, NUMBER]},
    ),
    ("Corpus.open",
     lambda m: peterrec.Corpus.open, lambda m: {"path": m.nowhere},
     {"path": [LIST, NONE, DICT, NUMBER]}),
    (
        "UserModel",
        lambda m: UserModel,
        lambda m: {"pretrained": m.model.pretrained, "device": "cpu", "precision": "fp32", "compile": False},
        {"pretrained": [LIST, TEXT, NONE, DICT], "device": [LIST, NONE], "precision": [NONE, LIST],
         "compile": [NONE, TEXT]},
    ),
    (
        "UserModel.from_pretrained",
        lambda m: UserModel.from_pretrained,
        lambda m: {"path": m.nowhere, "device": "cpu", "revision": None, "token": None, "local_files_only": False},
        {"path": [LIST, NONE, DICT], "device": [LIST, NONE], "revision": [LIST, NUMBER], "token": [LIST, NUMBER],
         "local_files_only": [NONE, TEXT]},
    ),
    ("UserModel.save_pretrained",
     lambda m: m.model.save_pretrained, lambda m: {"path": m.nowhere},
     {"path": [LIST, NONE]}),
    (
        "UserModel.load_bundle",
        lambda m: m.model.load_bundle,
        lambda m: {"path": m.nowhere, "name": None, "subfolder": None, "cache_dir": None},
        {"path": [LIST, NONE, DICT], "name": [LIST, NUMBER], "subfolder": [LIST, NUMBER], "cache_dir": [LIST, NUMBER]},
    ),
    (
        "UserModel.push_to_hub",
        lambda m: m.model.push_to_hub,
        lambda m: {"repo_id": "a/b", "bundle": None, "datasets": (), "endpoint": "http://127.0.0.1:9"},
        {"repo_id": [LIST, NONE, DICT, NUMBER, TEXT], "bundle": [LIST, NUMBER, TEXT], "datasets": [TEXT, NONE, [3]],
         "endpoint": [LIST, NUMBER]},
    ),
    (
        "UserModel.add_bundle",
        lambda m: m.model.add_bundle,
        lambda m: {"bundle": m.bundle, "name": None},
        {"bundle": [LIST, NONE, DICT, TEXT], "name": [LIST, NUMBER]},
    ),
    ("UserModel.delete_bundle",
     lambda m: m.model.delete_bundle, lambda m: {"name": "age"},
     {"name": [LIST, NONE, DICT]}),
    ("UserModel.bundle", lambda m: m.model.bundle, lambda m: {"name": "age"}, {"name": [LIST, NONE, DICT, NUMBER]}),
    (
        "UserModel.encode",
        lambda m: m.model.encode,
        lambda m: {"histories": HISTORIES, "unknown": None},
        {"histories": [LIST, TEXT, NONE, DICT, NUMBER], "unknown": [LIST, NUMBER, DICT]},
    ),
    (
        "UserModel.represent",
        lambda m: m.model.represent,
        lambda m: {"histories": HISTORIES, "bundle": None, "batch_size": 2, "unknown": "skip"},
        {"histories": [LIST, TEXT, NONE, DICT], "bundle": [LIST, DICT, NUMBER], "batch_size": [TEXT, NONE, LIST]},
    ),
    (
        "UserModel.embed",
        lambda m: m.model.embed,
        lambda m: {"histories": HISTORIES, "bundle": None, "batch_size": 2, "columns": None},
        {"histories": [LIST, TEXT, NONE, DICT], "bundle": [LIST, DICT, NUMBER], "columns": [LIST, TEXT, DICT]},
    ),
    (
        "UserModel.predict",
        lambda m: m.model.predict,
        lambda m: {"histories": HISTORIES, "bundle": "age", "batch_size": 2},
        {"histories": [LIST, TEXT, NONE, DICT], "bundle": [LIST, DICT, NUMBER, NONE], "batch_size": [TEXT]},
    ),
    (
        "UserModel.recommend",
        lambda m: m.model.recommend,
        lambda m: {"histories": HISTORIES, "bundle": "shop", "k": 2, "exclude_seen": True, "batch_size": 2},
        {"histories": [LIST, TEXT, NONE, DICT], "bundle": [LIST, DICT, NUMBER], "k": [TEXT, NONE, LIST, True],
         "exclude_seen": [NUMBER, TEXT, LIST]},
    ),
    ("UserModel.targets", lambda m: m.model.targets, lambda m: {"bundle": None}, {"bundle": [LIST, DICT, NUMBER]}),
    (
        "Engine",
        lambda m: Engine,
        lambda m: {"model": m.model, "config": None},
        {"model": [LIST, TEXT, NONE, DICT], "config": [LIST, TEXT, DICT]},
    ),
    (
        "Engine.predict",
        lambda m: m.engine.predict,
        lambda m: {"requests": [Request(["item-1"])]},
        {"requests": [LIST, TEXT, NONE, DICT, NUMBER, Request(["item-1"])]},
    ),
    (
        "Engine.prepare",
        lambda m: m.engine.prepare,
        lambda m: {"request": Request(["item-1"])},
        {"request": [LIST, TEXT, NONE, DICT, NUMBER]},
    ),
    (
        "Engine.load",
        lambda m: m.engine.load,
        lambda m: {"name": "age", "path": m.nowhere},
        {"name": [LIST, NONE, DICT], "path": [LIST, NONE, DICT]},
    ),
    ("Engine.add", lambda m: m.engine.add, lambda m: {"bundle": m.bundle}, {"bundle": [LIST, NONE, TEXT, DICT]}),
    ("Engine.drop", lambda m: m.engine.drop, lambda m: {"name": "age"}, {"name": [LIST, NONE, DICT]}),
    (
        "Engine.roll_back",
        lambda m: m.engine.roll_back,
        lambda m: {"name": "age", "version": None},
        {"name": [LIST, NONE, DICT], "version": [LIST, DICT]},
    ),
    (
        "Engine.save",
        lambda m: m.engine.save,
        lambda m: {"name": "age", "path": m.nowhere},
        {"name": [LIST, NONE], "path": [LIST, NONE]},
    ),
    ("Engine.versions", lambda m: m.engine.versions, lambda m: {"name": None}, {"name": [LIST, DICT]}),
    (
        "Request",  # looked at when it is asked
        lambda m: lambda **values: m.engine.prepare(Request(**values)),
        lambda m: {"items": ["item-1"], "question": Question()},
        {"items": [TEXT, NONE, DICT, NUMBER, [1.5], [None]], "question": [TEXT, NONE, DICT, LIST]},
    ),
    (
        "Question",
        lambda m: lambda **values: m.engine.prepare(Request(["item-1"], Question(**values))),
        lambda m: {"tasks": ["age"], "k": 3, "exclude_seen": True, "patched": True},
        {"tasks": [TEXT, NONE, DICT, NUMBER, [3]], "k": [TEXT, NONE, LIST, True], "exclude_seen": [NUMBER, TEXT],
         "patched": [NONE, TEXT]},
    ),
    (
        "Users",
        lambda m: Users,
        lambda m: {"engine": m.engine, "store": m.store},
        {"engine": [LIST, NONE, TEXT], "store": [LIST, NONE, TEXT]},
    ),
]  # fmt: skip
