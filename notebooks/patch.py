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
# # What a patch changes
#
# A patch is a small network of one task, put into a frozen backbone. This page looks at what it changes: the vectors
# of users, the answers of its own task, and nothing else.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

import peterrec
from peterrec.data.synthetic import synthetic

data = synthetic(users=900, items=300, clusters=4, mean_events=12, seed=3)
events, users = data.events.to_pandas(), data.users.to_pandas()
users["early"] = np.where(users["cluster"].isin(["c0", "c1"]), "yes", "no")  # a second task, on the same users
corpus = peterrec.prepare(
    events,
    domain="domain",
    users=users,
    classify=["cluster", "early"],
    source={"domains": ["source"]},
    split={"train": 0.6, "valid": 0.15, "test": 0.25},
)
quiet = {"progress": False}
model = peterrec.pretrain(corpus, epochs=3, backbone={"channels": 32, "dilations": [1, 4]}, runner=quiet)
model

# %% [markdown]
# ## How small is it?
#
# Beside the patch we train a head alone, and everything (a copy of the backbone, the bundle's own).

# %%
before = model.fingerprint
strategies = ("head", "patch", "all")
bundles = {name: peterrec.adapt(model, corpus, "cluster", strategy=name, epochs=4, runner=quiet) for name in strategies}
evaluation = peterrec.evaluate(model, corpus, bundles)
table = evaluation.to_pandas().set_index("name")
sizes = pd.Series({name: bundle.trainable_params for name, bundle in bundles.items()}, name="trained parameters")
table.loc[list(strategies), ["accuracy", "accuracy_low", "accuracy_high", "log_loss"]].join(sizes).round(3)

# %%
print(evaluation.sentence)

# %% [markdown]
# The backbone's fingerprint is a hash of all its weights. It did not change:

# %%
model.fingerprint == before

# %% [markdown]
# ## The vectors of users, without and with the patch
#
# What the head reads of the plain backbone, and of the backbone with the patch; each in its own two main directions.
# Colours are the clusters.

# %%
model.add_bundle(bundles["patch"], "cluster")
plain = model.represent(events, readout="both")
patched = model.embed(events, "cluster")
clusters = users.set_index("user_id").loc[patched.users.ids.to_pylist(), "cluster"]

figure, panels = plt.subplots(1, 2, figsize=(8, 3.8))
for axes, vectors, title in zip(panels, (plain, patched.vectors), ("plain backbone", "with the patch"), strict=True):
    places = PCA(2, random_state=0).fit_transform((vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6))
    for name in sorted(clusters.unique()):
        axes.scatter(*places[(clusters == name).to_numpy()].T, s=6, label=name)
    axes.set(title=title, xticks=[], yticks=[])
panels[1].legend()
figure.tight_layout()

# %%
change = np.linalg.norm(patched.vectors - plain, axis=1) / np.linalg.norm(plain, axis=1)
print(f"the patch moves a vector by {100 * np.median(change):.1f} % of its length (median)")

# %% [markdown]
# The two pictures look alike, and that is the finding: the head starts from a regression on the plain vectors, these
# tell the clusters already, and the patch has little left to do. In the table above head, patch and the whole network
# are level. Where a patch is worth more (short histories, few labels), [Results](../docs/results.md) says.
#
# ## A second task does not disturb the first
#
# Patches share the backbone and nothing else: a bundle that is put on the model changes no answer of another one, not
# in the last bit.

# %%
alone = model.predict(events, "cluster").probabilities
model.add_bundle(peterrec.adapt(model, corpus, "early", epochs=2, runner=quiet))
bool(np.array_equal(alone, model.predict(events, "cluster").probabilities))

# %% [markdown]
# With everything trained, as by the strategy `all`, each task needs a network of its own:

# %%
backbone_size = sum(parameter.numel() for parameter in model.network.backbone.parameters())
tasks = np.arange(1, 21)
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(tasks, (backbone_size + tasks * sizes["patch"]) / 1e3, label="one backbone, a patch for each task")
axes.plot(tasks, tasks * sizes["all"] / 1e3, label="a network for each task")
axes.set(xlabel="tasks", ylabel="thousand parameters", xlim=(1, 20), ylim=(0, None), xticks=[1, 5, 10, 15, 20])
axes.legend()
figure.tight_layout()
