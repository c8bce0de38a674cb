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
# # Quick start
#
# From a log of events to answers about users, on a log that is made up on the spot: 600 users, each with a taste that
# shows in what they do, and a few later events in a second shop. Your own log takes its place: any DataFrame, or a
# path.

# %%
import matplotlib.pyplot as plt

import peterrec
from peterrec.data.synthetic import synthetic

data = synthetic(users=600, seed=0)
events, users = data.events.to_pandas(), data.users.to_pandas()
events.head(3)

# %% [markdown]
# A table of users says what is to be predicted: here the `cluster` of each, of which one in twenty is wrong on
# purpose.

# %%
users["cluster"].value_counts()

# %% [markdown]
# ## Prepare
#
# Two tasks: to predict the column `cluster`, and to recommend items of the domain `target`, whose events leave what
# the model learns from. The default split keeps 3 % of the users to choose by, as the paper does; of 600 users that
# is too few, so we say otherwise.

# %%
corpus = peterrec.prepare(
    events,
    domain="domain",
    users=users,
    classify=["cluster"],
    rank={"shop": "target"},
    split={"train": 0.6, "valid": 0.15, "test": 0.25},
)
corpus

# %% [markdown]
# ## Pre-train, once, without any label
#
# These settings make the network small; leave them out for your own data. The curve is the loss on users who were
# held out.

# %%
quiet = {"progress": False}
model = peterrec.pretrain(corpus, epochs=4, backbone={"channels": 32, "dilations": [1, 4]}, runner=quiet)
model

# %% [markdown]
# ## Adapt to each task
#
# Only a patch and a head are trained. The backbone stays as it is, byte for byte.

# %%
for task in corpus.task_names:
    model.add_bundle(peterrec.adapt(model, corpus, task, epochs=4, runner=quiet))
model.bundle("cluster")

# %% [markdown]
# ## Evaluate, beside baselines
#
# On users who took no part. The bars are 95 % intervals: of methods whose intervals overlap much, none is clearly the
# best.

# %%
evaluation = peterrec.evaluate(model, corpus, model.bundle("cluster"))
table = evaluation.to_pandas().set_index("name").sort_values("accuracy")
errors = [table["accuracy"] - table["accuracy_low"], table["accuracy_high"] - table["accuracy"]]
figure, axes = plt.subplots(figsize=(6, 3))
axes.errorbar(table["accuracy"], table.index, xerr=errors, fmt="o", capsize=3)
axes.set(xlabel="accuracy on test users, with 95 % intervals", xlim=(0, 1))
figure.tight_layout()

# %%
print(evaluation.sentence)

# %% [markdown]
# Here the clusters are so plain that a logistic regression on counts of items tells them about as well as the patch.
# That is what a table of baselines is for; [When not to use it](../docs/when-not.md) says where it is so on real
# logs.
#
# ## Ask
#
# About anybody, seen before or not, with your own ids: a DataFrame of events, or lists of items. The answers are
# DataFrames that can be merged with what you have.

# %%
answers = model.predict(events, "cluster").to_pandas()
users.merge(answers, on="user_id").head(3)

# %%
history = events[(events["user_id"] == "u000001") & (events["domain"] == "source")]["item_id"].tolist()
model.recommend([history, history[:2]], "shop", k=3).to_pandas()

# %% [markdown]
# A vector for each user, for whatever else you do:

# %%
model.represent([history]).shape
