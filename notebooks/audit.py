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
# # An audit: what can be told about people?
#
# A log that says nothing about age or illness may tell it all the same. Before a log, a model or vectors of users are
# handed on, it is worth asking what can be told from them. The question is a task like any other: the attribute is
# the label, and the test users are people who took no part in anything.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import peterrec
from peterrec.data.synthetic import planted

# %% [markdown]
# In this made-up log three attributes are known of everybody, so that the right answers are known as well:
#
# - `diet` follows from taste, and taste from what people do;
# - `income` follows from it weakly;
# - `noise` is drawn by lot. Nobody can tell it.

# %%
data = planted(users=1500, items=200, clusters=4, mean_events=10, seed=5)
events, people = data.events.to_pandas(), data.users.to_pandas()
rng = np.random.default_rng(0)
people["diet"] = np.where(people["cluster"].isin(["c0", "c1"]), "vegetarian", "any")
high = np.where(people["cluster"] == "c0", 0.65, 0.45)
people["income"] = np.where(rng.random(len(people)) < high, "high", "low")
attributes = ["diet", "income", "noise"]
people[attributes].describe()

# %% [markdown]
# `new_users` keeps the test users out of everything that is learned, with labels or without: the audit is about
# people who come tomorrow.

# %%
corpus = peterrec.prepare(
    events,
    domain="domain",
    source={"domains": ["source"]},
    users=people,
    classify=attributes,
    new_users={"parts": ["test"]},
    split={"train": 0.5, "valid": 0.15, "test": 0.35},
)
quiet = {"progress": False}
model = peterrec.pretrain(corpus, epochs=3, backbone={"channels": 32, "dilations": [1, 4]}, runner=quiet)
results = {}
for attribute in attributes:
    bundle = peterrec.adapt(model, corpus, attribute, epochs=4, runner=quiet)
    results[attribute] = peterrec.evaluate(model, corpus, bundle)

# %% [markdown]
# ## What the log tells
#
# AUC: 0.5 is a coin, 1 is certainty. What counts is the best method, whichever it is: who wants to know will take
# that one.

# %%
figure, panels = plt.subplots(1, 3, sharex=True, sharey=True, figsize=(8, 2.8))
for axes, (attribute, evaluation) in zip(panels, results.items(), strict=True):
    table = evaluation.to_pandas()
    errors = [table["auc"] - table["auc_low"], table["auc_high"] - table["auc"]]
    axes.errorbar(table["auc"], table["name"], xerr=errors, fmt="o", capsize=3)
    axes.axvline(0.5, color="grey", linestyle="--")
    axes.set(title=attribute, xlabel="AUC", xlim=(0.35, 1.02))
figure.tight_layout()

# %%
for attribute, evaluation in results.items():
    best = evaluation.to_pandas().sort_values("auc", ascending=False).iloc[0]
    told = "the log tells it" if best["auc_low"] > 0.5 else "no method tells it apart from chance"
    print(
        f"{attribute}: {told} ({best['name']}: AUC {best['auc']:.2f}, {best['auc_low']:.2f} to {best['auc_high']:.2f})"
    )

# %% [markdown]
# `noise` is the check of the audit itself: if it came out as told, the audit would be wrong. With three attributes
# and several methods, though, one lower limit just above 0.5 is expected now and then; do not read much into it.
#
# A result that is no better than chance is no proof that nobody can tell: another method, or more data, might.
#
# ## What the vectors tell
#
# Vectors of users are often handed on where the log may not be. They tell what the log tells. Here a plain logistic
# regression reads the attribute off vectors that no label ever touched:

# %%
embeddings = model.embed(events, readout="both")
vectors = StandardScaler().fit_transform(embeddings.vectors)
labels = people.set_index("user_id").loc[embeddings.users.ids.to_pylist()]
half = np.random.default_rng(1).random(len(labels)) < 0.5
rows = []
for attribute in attributes:
    truth = labels[attribute] == sorted(labels[attribute].unique())[-1]
    regression = LogisticRegression(C=0.01, max_iter=1000).fit(vectors[half], truth[half])
    rows.append((attribute, roc_auc_score(truth[~half], regression.predict_proba(vectors[~half])[:, 1])))
pd.DataFrame(rows, columns=["attribute", "AUC of a regression on the vectors"]).round(3)

# %% [markdown]
# So handing on vectors instead of events hides nothing of this kind. [Attributes of users](../docs/attributes.md) has
# more about audits.
