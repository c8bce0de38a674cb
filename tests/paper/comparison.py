"""Breaks of what docs/paper.md says of strategies, splits and the protocol of evaluation."""

from __future__ import annotations

from paper.mutation import Mutation

SCRATCH = '"scratch": BackbonePlan(unshared=None, pretrained=False)'
RANDOM = "BackbonePlan(unshared=None, trained=False, pretrained=False, patch=True)"
STEP = "self.loss_share = torch.stack(losses).sum() / sum(users)"
SHARES = 'default=0.70, description="fraction of users to train on")\n    valid: Fraction = Field(default=0.03'

MUTATIONS: dict[str, list[Mutation]] = {
    "FineZero": [
        Mutation("`scratch` starts pre-trained", "training/strategies.py", SCRATCH,
                 SCRATCH.replace(", pretrained=False", "")),
        Mutation("`patch-random` starts pre-trained", "training/strategies.py", RANDOM,
                 RANDOM.replace(", pretrained=False", "")),
        Mutation("`patch-random` trains its trunk", "training/strategies.py", RANDOM,
                 RANDOM.replace(", trained=False", "")),
        Mutation("`head` has a patch", "training/strategies.py",
                 '"head": BackbonePlan()', '"head": BackbonePlan(patch=True)'),
        Mutation("`last1` trains two blocks", "training/strategies.py",
                 '"last1": BackbonePlan(unshared=1)', '"last1": BackbonePlan(unshared=2)'),
        Mutation("`last-sublayer` trains a block", "training/strategies.py",
                 "BackbonePlan(unshared=1, per_block=1)", "BackbonePlan(unshared=1, per_block=2)"),
        Mutation("`last2` trains one block", "training/strategies.py",
                 '"last2": BackbonePlan(unshared=2)', '"last2": BackbonePlan(unshared=1)'),
        Mutation("`all` leaves the embeddings out", "training/strategies.py",
                 '"all": BackbonePlan(unshared=None)', '"all": BackbonePlan(unshared=2)'),
    ],
    "MTL": [
        Mutation("the loss is that of the first task", "training/joint.py", STEP,
                 "self.loss_share = losses[0] / sum(users)"),
        Mutation("the loss is not weighted by users", "training/joint.py", STEP,
                 "self.loss_share = torch.stack([x / n for n, x in zip(users, losses, strict=True)]).mean()"),
        Mutation("only users of the first task are seen", "training/learners.py",
                 "cls([learner.source for learner in learners], places,",
                 "cls([learner.source for learner in learners[:1]], places[:1],"),
        Mutation("the backbone is not trained", "training/joint.py",
                 '{"backbone": backbone, "heads": heads, ', '{"heads": heads, '),
    ],
    "70 / 3 / 27 %": [
        Mutation("the default is 60 / 13 / 27", "config/data.py", SHARES,
                 SHARES.replace("0.70", "0.60").replace("0.03", "0.13")),
        Mutation("valid and test are exchanged", "data/splits.py", "config.train + config.valid]",
                 "config.train + config.test]"),
        Mutation("the order of users decides", "data/splits.py",
                 "uniform(hashes, config.salt)", "np.arange(len(hashes)) / max(1, len(hashes))"),
        Mutation("the salt is ignored", "data/splits.py", 'f"salt:{salt}"', '"salt:peterrec"'),
    ],
    "HR@5 and MRR@5": [
        Mutation("there are 100 negatives", "config/run.py",
                 "negatives: PositiveInt = Field(default=99", "negatives: PositiveInt = Field(default=100"),
        Mutation("the cut-off is 10", "config/run.py",
                 "k: PositiveInt = Field(default=5", "k: PositiveInt = Field(default=10"),
        Mutation("a positive of the user may be a negative", "evaluation/candidates.py",
                 "return np.asarray(nth + skipped)", "return np.asarray(nth + 0 * skipped)"),
        Mutation("a negative may be drawn twice", "evaluation/candidates.py",
                 "chosen[:, step] = np.where(taken, last, drawn)", "chosen[:, step] = drawn"),
        Mutation("ties are counted in favour of the positive", "evaluation/protocols.py",
                 "sampled_rank=1.0 + sampled[0] + sampled[1] / 2.0", "sampled_rank=1.0 + sampled[0]"),
        Mutation("the rank at the cut-off is no hit", "evaluation/metrics.py",
                 "return np.where(ranks <= (", "return np.where(ranks < ("),
        Mutation("ties know no cut-off", "evaluation/metrics.py", "gains[k:] = 0.0", "pass"),
        Mutation("MRR is NDCG", "evaluation/metrics.py", "lambda rank: 1.0 / rank)",
                 "lambda rank: 1.0 / np.log2(1.0 + rank))"),
        Mutation("accuracy counts the users whose class is wrong", "evaluation/statistics.py",
                 "(outcome.predicted == outcome.labels)", "(outcome.predicted != outcome.labels)"),
        Mutation("the predicted class is the least probable", "data/decision.py",
                 "return np.asarray(probabilities.argmax(axis=1))", "return np.asarray(probabilities.argmin(axis=1))"),
    ],
}  # fmt: skip
