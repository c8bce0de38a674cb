"""Breaks of what docs/paper.md says of transfer."""

from __future__ import annotations

from paper.mutation import Mutation

PLACE = "position = end_of(tokens)"
READ = "return hidden[rows.unsqueeze(1), positions].sum(dim=1)"
LAST = "return backbone.forward_last(longer, position, patch)"
CHOSEN = "self.weight[items]) + self.bias[items]"
LOSS = 'head(vectors), batch["labels"], weight=self.weights, label_smoothing=smoothing'
BPR = "return F.softplus(negative - positive.unsqueeze(1)).mean()"

MUTATIONS: dict[str, list[Mutation]] = {
    "A token [TCL] goes behind the sequence": [
        Mutation("it takes the place of the first item", "nn/tokens.py", PLACE,
                 "position = (tokens != PAD).int().argmax(dim=1)"),
        Mutation("it goes behind the padding", "nn/tokens.py", PLACE,
                 "position = torch.full_like(end_of(tokens), tokens.shape[1])"),
        Mutation("of a noncausal one it stands at the end only", "nn/tokens.py",
                 "return longer.scatter(1, positions, TCL), positions", "return longer, positions"),
        Mutation("of a noncausal one the first stands before the padding", "nn/tokens.py",
                 "torch.stack([first.clamp(min=0), last], dim=1)", "torch.stack([0 * first, last], dim=1)"),
        Mutation("of a noncausal one it goes behind only, whatever is asked", "config/backbone.py",
                 'return self.kind == "noncausal" and self.task_tokens == "both-ends"', "return False"),
    ],
    "The user is the hidden state there": [
        Mutation("it is the state at the last event", "nn/readout.py", LAST,
                 LAST.replace("position", "(position - 1).clamp(min=0)")),
        Mutation("it is the mean of both ends", "nn/tokens.py", READ, READ.replace(".sum(", ".mean(")),
        Mutation("it is the state at the last one only", "nn/tokens.py", READ, READ.replace(".sum(dim=1)", "[:, -1]")),
        Mutation("the patch is not asked", "nn/readout.py", LAST, LAST.replace(", patch)", ")")),
    ],
    "A new head reads it": [
        Mutation("chosen items are scored without their bias", "nn/heads.py", CHOSEN, "self.weight[items])"),
        Mutation("scores have no bias", "nn/heads.py",
                 "F.linear(self.read(representation), self.weight, self.bias)",
                 "F.linear(self.read(representation), self.weight)"),
        Mutation("targets get a head of classes", "training/task_kinds/ranking.py",
                 "return ItemHead(", "return __import__('peterrec.nn.heads').nn.heads.ClassificationHead("),
    ],
    "Classification by cross-entropy": [
        Mutation("labels are of other users", "training/task_kinds/classification.py", LOSS,
                 LOSS.replace('"]', '"].flip(0)')),
        Mutation("classes weigh alike whatever is asked", "training/task_kinds/classification.py", LOSS,
                 LOSS.replace("weight=self.weights, ", "")),
        Mutation("labels are not smoothed", "training/task_kinds/classification.py", LOSS,
                 LOSS.replace("label_smoothing=smoothing", "label_smoothing=0.0")),
    ],
    "Ranking by BPR": [
        Mutation("the pair is turned around", "nn/losses.py", BPR,
                 "return F.softplus(positive.unsqueeze(1) - negative).mean()"),
        Mutation("only the first negative counts", "nn/losses.py", BPR,
                 "return F.softplus(negative[:, 0] - positive).mean()"),
        Mutation("BCE takes the place of BPR", "training/task_kinds/ranking.py", "return bpr_loss(positive, negative)",
                 "return bce_loss(positive, negative)"),
        Mutation("every pair is scored for the first user", "training/task_kinds/ranking.py",
                 'return all_scores[batch["user"].unsqueeze(1), candidates]', "return all_scores[0, candidates]"),
        Mutation("of many targets too", "training/task_kinds/ranking.py",
                 'return head.score(vectors[batch["user"]], candidates)',
                 'return head.score(vectors[0 * batch["user"]], candidates)'),
        Mutation("a positive may be a negative", "data/negatives.py", "tickets = draws + ", "tickets = draws + 0 * "),
    ],
    "The pre-trained weights stay as they are": [
        Mutation("the backbone is not frozen", "training/strategies.py",
                 "backbone.requires_grad_(False)\n", "plan = PLANS[config.strategy]\n"),
        Mutation("the weights themselves are trained, not copies", "nn/backbone.py",
                 "parts = copy.deepcopy(self.modules_of(unshared))", "parts = self.modules_of(unshared)"),
        Mutation("all of the backbone is in what is trained", "training/strategies.py",
                 "if self.unshared is None or not self.unshared_trained:\n            return None",
                 'if self.unshared is None:\n            return nn.ModuleDict({"all": self.backbone})'),
        Mutation("nobody looks whether it changed", "training/adaptation_run.py",
                 "if model.pretrained.fingerprint != before:", "if False:"),
    ],
}  # fmt: skip
