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
# # Your own data, with pandas
#
# A log as it comes out of a shop's database: other names of columns, integer ids, dates, a carrier bag in every
# basket, a few broken rows. This page makes such a log, looks at what `prepare` says about it, and ends with a
# DataFrame of answers.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import peterrec

rng = np.random.default_rng(0)
CUSTOMERS, BAG = 700, 999
likes = rng.integers(3, size=CUSTOMERS)  # what each customer likes: nobody has this column
rows = []
for customer, liked in enumerate(likes, start=10_000):
    for day in np.sort(rng.integers(0, 90, size=rng.integers(3, 25))):
        group = liked if rng.random() < 0.75 else rng.integers(3)
        rows.append((customer, 100 * (group + 1) + rng.integers(40), day))
        rows.append((customer, BAG, day))
log = pd.DataFrame(rows, columns=["customer", "sku", "day"])
log["bought_at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(log.pop("day"), unit="D")
log.loc[log.sample(5, random_state=0).index, "bought_at"] = pd.NaT

plans = np.array(["basic", "family", "premium"])
customers = pd.DataFrame({"customer": range(10_000, 10_000 + CUSTOMERS), "plan": plans[likes]})
wrong = rng.random(CUSTOMERS) < 0.15
customers.loc[wrong, "plan"] = rng.choice(plans, wrong.sum())
log.head(3)

# %% [markdown]
# ## A mistake is told
#
# Every mistake is a `PeterRecError` that says what to do, and nothing is written before.

# %%
try:
    peterrec.prepare(log, user="customer", item="sku", time="bought")
except peterrec.PeterRecError as error:
    print(error)

# %% [markdown]
# With the right name, rows without a time are still refused: either they are mended, or `invalid_rows="drop"` says
# that they may go.

# %%
names = {"user": "customer", "item": "sku", "time": "bought_at"}
try:
    peterrec.prepare(log, **names)
except peterrec.PeterRecError as error:
    print(error)

# %% [markdown]
# ## Read what it says
#
# `report` is called with one line at a time, `print` will do. Two of them need an answer: half of all events are one
# item (the carrier bag), and many events of a user have the same time.

# %%
corpus = peterrec.prepare(log, **names, invalid_rows="drop", report=print)

# %% [markdown]
# The bag is no choice of anybody: it leaves the log before it is prepared. A look at the lengths of histories helps,
# too: it says how many users can be told by what they did.

# %%
shopping = log[log["sku"] != BAG].dropna()
lengths = shopping.groupby("customer").size()
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.hist(lengths, bins=range(0, 26))
axes.set(xlabel="events of a customer", ylabel="customers")
figure.tight_layout()

# %% [markdown]
# ## The whole way
#
# `split` keeps enough users to choose an epoch by. Settings of groups are mappings; a misspelt one is refused.

# %%
quiet = {"progress": False}
corpus = peterrec.prepare(
    shopping,
    **names,
    users=customers,
    classify=["plan"],
    split={"train": 0.6, "valid": 0.15, "test": 0.25},
)
model = peterrec.pretrain(corpus, epochs=3, backbone={"channels": 32, "dilations": [1, 4]}, runner=quiet)
plan = peterrec.adapt(model, corpus, "plan", epochs=3, runner=quiet)
evaluation = peterrec.evaluate(model, corpus, plan)
evaluation.to_pandas()[["name", "family", "accuracy", "accuracy_low", "accuracy_high", "log_loss"]].round(3)

# %%
print(evaluation.sentence)

# %% [markdown]
# One label in seven was drawn at random on purpose, so no method can be right much more often than nine times in ten.
#
# ## Answers go back to your table
#
# The column of ids has the name and the type that it came with, so `merge` works. A customer without a single known
# event is answered with the class shares, and `known_events` is 0.

# %%
model.add_bundle(plan)
today = pd.concat([shopping, pd.DataFrame({"customer": [1], "sku": [5], "bought_at": [pd.Timestamp("2026-04-01")]})])
answers = model.predict(today, "plan").to_pandas()
answers[answers["customer"] == 1]

# %%
merged = customers.merge(answers, on="customer")
pd.crosstab(merged["plan"], merged["label"])

# %% [markdown]
# This table has train users in it and looks better than the model is; the one of `evaluate` is on test users.
#
# More customers than memory holds? The functions answer files and DataFrames some users at a time, into a file:

# %%
peterrec.predict(model, plan, shopping, "plans.parquet", batch_size=512).num_rows
