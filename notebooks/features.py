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
# # Embeddings beside other features
#
# Most teams have a table of features already: tenure, visits, country. Do vectors of users help beside it? This page
# asks gradient boosting, on a made-up churn task where both have something to say, and says what wins.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import peterrec
from peterrec.data.synthetic import synthetic
from peterrec.sklearn import UserEncoder

# %% [markdown]
# ## A table as teams have it
#
# Whether somebody churns depends on tenure and on visits (in the table) and on taste (in the events only).

# %%
data = synthetic(users=1500, items=400, clusters=4, mean_events=12, seed=6)
events = data.events.to_pandas()
events = events[events["domain"] == "source"].sort_values("timestamp")
histories = events.groupby("user_id")["item_id"].agg(list)
taste = data.users.to_pandas().set_index("user_id")["cluster"].loc[histories.index]
rng = np.random.default_rng(0)
table = pd.DataFrame({"history": histories})
table["tenure"] = rng.exponential(3.0, len(table))
table["visits"] = rng.poisson(4, len(table))
odds = 1.5 * taste.isin(["c0", "c1"]) - 0.4 * table["tenure"] - 0.2 * table["visits"] + 1.0
table["churned"] = rng.random(len(table)) < 1 / (1 + np.exp(-odds))
table.head(3)

# %% [markdown]
# ## Pre-train once
#
# On events alone, without the column that is to be predicted. The vectors are columns of a DataFrame like any others.

# %%
corpus = peterrec.prepare(events)
model = peterrec.pretrain(corpus, epochs=4, backbone={"channels": 32, "dilations": [1, 4]}, runner={"progress": False})

# %% [markdown]
# ## Which features, which model
#
# `UserEncoder` turns the column of histories into vectors. Trees split one column at a time and do not like 96 dense
# ones, so the vectors are brought down to their 8 main directions for them; the logistic regression takes them whole.
# To be fair there is a cheap rival, too: 8 factors of a TF-IDF of items, without any network.

# %%
numbers = ["tenure", "visits"]


def items_of(history: list) -> list:
    return history


def features(which: str, directions: int | None) -> ColumnTransformer:
    encoder = make_pipeline(UserEncoder(model), StandardScaler())
    if directions is not None:
        encoder.steps.append(("pca", PCA(directions, random_state=0)))
    factors = make_pipeline(TfidfVectorizer(analyzer=items_of), TruncatedSVD(8, random_state=0), StandardScaler())
    parts = {
        "table": ("table", StandardScaler(), numbers),
        "vectors": ("vectors", encoder, "history"),
        "factors": ("factors", factors, "history"),
    }
    return ColumnTransformer([parts[name] for name in which.split(" + ")])


def boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.08, random_state=0)


def regression() -> LogisticRegression:
    return LogisticRegression(C=0.02, max_iter=2000)


models = {
    "gradient boosting": lambda which: make_pipeline(features(which, 8), boosting()),
    "logistic regression": lambda which: make_pipeline(features(which, None), regression()),
}
sets = ["table", "vectors", "table + vectors", "table + factors"]
folds = StratifiedKFold(5, shuffle=True, random_state=0)
rows = []
for name, make in models.items():
    for which in sets:
        scores = cross_val_score(make(which), table, table["churned"], cv=folds, scoring="roc_auc")
        rows.append({"model": name, "features": which, "auc": scores.mean(), "std": scores.std()})
results = pd.DataFrame(rows)
results.round(3)

# %%
pivot = results.pivot(index="features", columns="model", values="auc").loc[sets]
spread = results.pivot(index="features", columns="model", values="std").loc[sets]
figure, axes = plt.subplots(figsize=(6.5, 3.5))
pivot.plot.bar(yerr=spread, ax=axes, rot=0, capsize=3)
axes.set(ylim=(0.5, 0.9), ylabel="AUC, mean and deviation over 5 folds", xlabel="")
figure.tight_layout()

# %% [markdown]
# What is seen: what people did beside the table is clearly better than either alone, with both models. But the vectors
# of a network are not needed for that here: 8 factors of TF-IDF, which take a second, are as good beside the table. The
# history is worth having as a feature; try the factors first, and the vectors where histories are short, the catalogue
# is large, or labels are few (the notebook `few-labels`).
