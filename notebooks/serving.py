# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serving
#
# One process holds the backbone and the bundles of all tasks, and answers any of them about any user: first in this
# process, by the engine, then over HTTP, by `peterrec serve`. Needs `pip install 'peterrec[serve]'`.

# %%
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt

import peterrec
from peterrec.data.synthetic import synthetic

folder = Path(tempfile.mkdtemp(prefix="peterrec-serving-"))
data = synthetic(users=500, seed=4)
corpus = peterrec.prepare(
    data.events,
    domain="domain",
    users=data.users,
    classify=["cluster"],
    rank={"shop": "target"},
    split={"train": 0.6, "valid": 0.2, "test": 0.2},
)
quiet = {"progress": False}
small = {"channels": 32, "dilations": [1, 4]}
model = peterrec.pretrain(corpus, folder / "backbone", epochs=2, backbone=small, runner=quiet)
for task in corpus.task_names:
    model.add_bundle(peterrec.adapt(model, corpus, task, folder / task, epochs=2, runner=quiet))

# %% [markdown]
# ## The engine, in this process
#
# A batch may hold any tasks: the rows go through the one backbone together, each with its own patch.

# %%
engine = peterrec.Engine(model)
requests = [
    peterrec.Request(["s0001", "s0005"], peterrec.Question(["cluster"])),
    peterrec.Request(["s0002"], peterrec.Question(["shop"], k=3)),
    peterrec.Request([]),  # nothing is known, every task is asked
]
for answer in engine.predict(requests):
    for name, task in answer.tasks.items():
        print(answer.known_events, "events known:", name, task.items[:3] if task.kind == "ranking" else task.label)

# %% [markdown]
# What many at once bring: the time for each request, by the size of the batch.

# %%
sizes = [1, 4, 16, 64, 256]
items = data.events["item_id"].to_pylist()
milliseconds = []
for size in sizes:
    batch = [peterrec.Request(items[start : start + 20]) for start in range(size)]
    engine.predict(batch)  # once to warm up
    start = time.perf_counter()
    for _ in range(5):
        engine.predict(batch)
    milliseconds.append(1000 * (time.perf_counter() - start) / 5 / size)
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(sizes, milliseconds, "o-")
axes.set(xscale="log", yscale="log", xlabel="requests in a batch", ylabel="milliseconds for each")
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
figure.tight_layout()

# %% [markdown]
# ## Over HTTP
#
# The same, as a service of its own. It keeps users' events, so that a product sends each event once, when it happens.
# Port 0 takes any that is free; the log says which.

# %%
bundles = [option for task in corpus.task_names for option in ("--bundle", str(folder / task))]
log = (folder / "log.jsonl").open("w")
service = subprocess.Popen(
    [
        sys.executable,
        "-m",
        "peterrec",
        "serve",
        folder / "backbone",
        *bundles,
        "--port",
        "0",
        "--state",
        folder / "state",
    ],
    stdout=log,
    stderr=log,
)


def address() -> str:
    """Return where the service listens, when it does."""
    for _ in range(300):
        text = (folder / "log.jsonl").read_text()
        for line in text.splitlines():
            if "http://" in line:
                return "http://" + line.partition("http://")[2].split('"')[0].split()[0].rstrip("/")
        if service.poll() is not None:
            raise RuntimeError(text)
        time.sleep(0.2)
    raise RuntimeError(text)


def ask(path: str, body: dict) -> dict:
    """Send JSON, return JSON."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


url = address()

# %% [markdown]
# Events of a user come in as they happen. After each, we ask for the cluster: the answer gets surer as more is known.

# %%
tastes = []
for number, item in enumerate(["s0001", "s0005", "s0009", "s0013"], start=1):
    ask("/v1/events", {"events": [{"id": f"receipt-{number}", "user": "anna", "item": item}]})
    answer = ask("/v1/users/anna/predict", {"tasks": ["cluster"]})
    tastes.append(answer["tasks"]["cluster"]["probabilities"])
figure, axes = plt.subplots(figsize=(6, 3))
for name in tastes[0]:
    axes.plot(range(1, 5), [row[name] for row in tastes], "o-", label=name)
axes.set(xlabel="events known of anna", ylabel="probability of the cluster", ylim=(0, 1), xticks=range(1, 5))
axes.legend()
figure.tight_layout()

# %% [markdown]
# The service says what the model says: row for row, to within 1e-5.

# %%
here = model.predict([["s0001", "s0005", "s0009", "s0013"]], "cluster")
max(abs(tastes[-1][name] - float(p)) for name, p in zip(here.class_names, here.probabilities[0], strict=True)) < 1e-5

# %% [markdown]
# A person who asks to be forgotten is forgotten; then the service stops. The page that it shows to people is at the
# same address.

# %%
request = urllib.request.Request(f"{url}/v1/users/anna", method="DELETE")
with urllib.request.urlopen(request, timeout=60) as response:
    print(response.status)
service.terminate()
service.wait(timeout=60)
log.close()
