"""Breaks of what docs/paper.md says of pre-training."""

from __future__ import annotations

from paper.mutation import Mutation

CUT = "return pad_windows(sequences.items, ends - lengths, lengths, width, sequences.features)"
REACH = "return (total, 0) if self.causal else (total // 2, total // 2)"
NEXT = "return Examples(inputs[:, :-1], _items_of(tokens[:, 1:]))"
HIDDEN = "return Examples(inputs, np.where(chosen, items_of(tokens), PAD))"

MUTATIONS: dict[str, list[Mutation]] = {
    "A user is the sequence of items": [
        Mutation("the first events are read, not the last", "data/batching.py", CUT,
                 CUT.replace("ends - lengths", "sequences.offsets[:-1][rows]")),
        Mutation("the newest comes first", "data/batching.py", CUT,
                 CUT.replace("sequences.items, ends - lengths", "sequences.items[::-1], len(sequences.items) - ends")),
        Mutation("events are not sorted by time", "data/prepare/event_sequences.py",
                 'table, keys, parts)', 'table, keys[:1], parts)'),
    ],
    "Items are embedded": [
        Mutation("blocks have no residual", "nn/block.py", "return x + out_all", "return out_all"),
        Mutation("blocks have no residual where one state is computed", "nn/block.py",
                 "return at_outputs(x, steps) + out", "return out"),
        Mutation("the embedding of [PAD] is drawn like any other", "nn/backbone.py",
                 "self.embedding.weight[PAD].zero_()", "pass"),
        Mutation("padding is seen", "nn/backbone.py",
                 "return real.unsqueeze(2) if bool(harmful.any()) else None", "return None"),
        Mutation("every block has dilation 1", "nn/backbone.py",
                 "(Block(self.config, dilation, generator) for", "(Block(self.config, 1, generator) for"),
    ],
    "A block is conv, LayerNorm, ReLU": [
        Mutation("the dilation is not doubled", "nn/block.py",
                 "ConvSublayer(config, 2 * dilation", "ConvSublayer(config, dilation"),
        Mutation("there is one sublayer, not two", "nn/block.py",
                 "self.second(self.first(x, keep, first), keep, second)", "self.first(x, keep, first)"),
        Mutation("LayerNorm is skipped", "nn/block.py", "return torch.relu(self.norm(h))", "return torch.relu(h)"),
        Mutation("ReLU is skipped", "nn/block.py", "return torch.relu(self.norm(h))", "return self.norm(h)"),
        Mutation("LayerNorm comes after ReLU", "nn/block.py",
                 "return torch.relu(self.norm(h))", "return self.norm(torch.relu(h))"),
        Mutation("ReLU is skipped where there is a patch", "nn/block.py",
                 "torch.relu(patch.pre_act(layer_input, h))", "patch.pre_act(layer_input, h)"),
    ],
    "Causal: zeros on the left only": [
        Mutation("a causal convolution sees both sides", "nn/conv.py", REACH,
                 "return (total - total // 2, total // 2)"),
        Mutation("a causal convolution sees what comes later", "nn/conv.py", REACH,
                 REACH.replace("(total, 0)", "(0, total)")),
    ],
    "Noncausal: as far to both sides": [
        Mutation("a noncausal convolution looks back only", "nn/conv.py", REACH, "return (total, 0)"),
        Mutation("a noncausal convolution looks further back", "nn/conv.py", REACH,
                 REACH.replace("(total // 2, total // 2)", "(total // 2 + 1, total // 2 - 1)")),
    ],
    "Causal objective": [
        Mutation("the item itself is asked for", "training/objectives.py", NEXT, NEXT.replace("1:", ":-1")),
        Mutation("only the last item is asked for", "training/objectives.py", NEXT,
                 "t = _items_of(tokens[:, 1:])\n        return Examples(inputs[:, :-1], t * _last(t))"),
        Mutation("[UNK] is predicted", "training/objectives.py",
                 "return np.where(items >= FIRST_ITEM, items, PAD)", "return tokens"),
        Mutation("each kind has the objective of the other", "training/objectives.py",
                 'return NextItem(config, items) if config.backbone.kind == "causal" else',
                 'return NextItem(config, items) if config.backbone.kind != "causal" else'),
        Mutation("windows share no item, so that some are never predicted", "data/batching.py",
                 "starts = np.maximum(begin, end - max_length - 1)", "starts = np.maximum(begin, end - max_length)"),
        Mutation("padding counts in the loss", "training/pretrain_module.py",
                 'is_target = batch["targets"] != PAD\n        targets = batch["targets"][is_target]',
                 'is_target = batch["inputs"] != -1\n'
                 '        targets = batch["targets"][is_target].clamp(min=FIRST_ITEM)'),
    ],
    "Noncausal objective": [
        Mutation("every item is asked for, hidden or not", "training/objectives.py", HIDDEN,
                 "return Examples(inputs, tokens)"),
        Mutation("nothing is hidden", "training/objectives.py", HIDDEN, HIDDEN.replace("(inputs,", "(tokens,")),
        Mutation("what is read is asked for", "training/objectives.py", HIDDEN,
                 HIDDEN.replace("items_of(tokens)", "items_of(inputs)")),
        Mutation("a row may be asked for nothing", "training/objectives.py", "rng, least=1)", "rng, least=0)"),
        Mutation("it is the first items that are hidden", "data/masking.py",
                 "keys = np.where(real, rng.random(tokens.shape), 2.0)",
                 "keys = np.where(real, np.zeros(tokens.shape), 2.0)"),
    ],
    "30 % of the items are chosen": [
        Mutation("half of the items are chosen", "config/pretraining.py",
                 'return 0.3 if self.backbone.kind == "noncausal"', 'return 0.5 if self.backbone.kind == "noncausal"'),
        Mutation("at most 300 are", "config/pretraining.py",
                 "max_masked: PositiveInt = Field(default=30,", "max_masked: PositiveInt = Field(default=300,"),
        Mutation("nothing limits how many", "data/masking.py",
                 "np.clip(np.round(share * count).astype(np.int64), least, config.max_masked)",
                 "np.maximum(np.round(share * count).astype(np.int64), least)"),
        Mutation("none becomes a random item", "data/masking.py",
                 "np.where(not_random, tokens, random)", "np.where(not_random, tokens, MASK)"),
        Mutation("none stays", "data/masking.py",
                 "fate < config.mask_replace_fraction + config.keep_fraction", "fate < 0"),
        Mutation("all become the mask", "data/masking.py",
                 "fate < config.mask_replace_fraction, MASK", "fate < 2, MASK"),
    ],
    "Order need not be strict": [
        Mutation("the masking of causal inputs is ignored", "training/objectives.py", NEXT,
                 NEXT.replace("inputs[:, :-1]", "tokens[:, :-1]")),
        Mutation("masked ids are taken as targets", "training/objectives.py", NEXT,
                 NEXT.replace("tokens[:, 1:]", "inputs[:, 1:]")),
        Mutation("padding may be masked", "data/masking.py",
                 "real = items_of(tokens) >= FIRST_ITEM", "real = tokens >= 0"),
    ],
    "Full softmax where the catalogue is small": [
        Mutation("the small catalogue gets the sampled softmax", "config/pretraining.py",
                 "items > self.full_softmax_limit", "items <= self.full_softmax_limit"),
        Mutation("training always takes the full softmax", "training/pretrain_module.py",
                 "if self.sampler is None:\n            return chunked", "if True:\n            return chunked"),
        Mutation("the positive's part of the gradient is forgotten", "nn/chunked_losses.py",
                 "derivative = logits[positive] - 1.0", "derivative = logits[positive] * 1.0"),
        Mutation("the full softmax leaves the biases out", "nn/chunked_losses.py",
                 "hidden, weight, bias, lambda", "hidden, weight, 0 * bias, lambda"),
        Mutation("accidental hits are negatives", "nn/chunked_losses.py",
                 'chunk[torch.arange(len(chunk), device=chunk.device), hits[chunk_rows]] = float("-inf")', "pass"),
        Mutation("negatives are not corrected", "nn/chunked_losses.py",
                 "_log_weights(log_expected.to(exact), which", "_log_weights(0 * log_expected.to(exact), which"),
        Mutation("negatives are drawn uniformly", "nn/losses.py",
                 "drawn = torch.exp(uniform * self._log_range) - 1.0", "drawn = uniform * self.items"),
        Mutation("counts are expected of one draw", "nn/losses.py",
                 "return self.log_probability(positions) + math.log(draws)", "return self.log_probability(positions)"),
    ],
}  # fmt: skip
