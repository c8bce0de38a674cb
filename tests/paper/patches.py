"""Breaks of what docs/paper.md says of model patches."""

from __future__ import annotations

from paper.mutation import Mutation

INNER = "self.up(self.activation(self.down(x)))"
RESIDUAL = "return x + correction if self.residual else correction"
ACT = "h + self.net(layer_input.current) if self.parallel else self.net(h)"
LAYER = "return cls(net, config.position, parallel=parallel)"
HOOK = 'return self._act(layer_input, h) if self.position == "{place}" else h'
SITES = "sublayers = (0, 1) if config.per_block == 2 else (1,)"
DRAWN = "generator=generator)\n        _initialise(self.up.weight, init, generator)"
SCALED = "return h * (1.0 + self.gain) + self.shift"


def nothing_at(place: str) -> tuple[str, str]:
    """The hook of a place, and one that does nothing."""
    text = HOOK.format(place=place)
    return text, "return h"


MUTATIONS: dict[str, list[Mutation]] = {
    "A patch is a bottleneck": [
        Mutation("there is no activation", "nn/patch_kinds.py", INNER, "self.up(self.down(x))"),
        Mutation("there is no residual", "nn/patch_kinds.py", RESIDUAL, "return correction"),
        Mutation("there is always a residual", "nn/patch_kinds.py", RESIDUAL, "return x + correction"),
        Mutation("the activation comes last", "nn/patch_kinds.py", INNER, "self.activation(self.up(self.down(x)))"),
    ],
    "It has less than a tenth": [
        Mutation("it is four times as wide by default", "config/patch.py",
                 "bottleneck: Width = Field(\n        default=0.125",
                 "bottleneck: Width = Field(\n        default=0.5"),
        Mutation("a share of the channels is doubled", "nn/patch_kinds.py",
                 "max(1, round(setting * channels))", "max(1, round(2 * setting * channels))"),
        Mutation("nothing is said of one that is twice as wide", "training/patch_size.py",
                 "LARGEST_SHARE = 0.10", "LARGEST_SHARE = 0.20"),
    ],
    "In series": [
        Mutation("before LayerNorm it does nothing", "nn/patch_kinds.py", *nothing_at("pre_norm")),
        Mutation("after LayerNorm it does nothing", "nn/patch_kinds.py", *nothing_at("pre_act")),
        Mutation("it always stands before LayerNorm", "nn/patch_kinds.py",
                 LAYER, LAYER.replace("config.position", '"pre_norm"')),
        Mutation("in series it is added to what it reads", "nn/patch_kinds.py", ACT,
                 ACT.replace("else self.net(h)", "else h + self.net(h)")),
        Mutation("once in a block is twice", "nn/patch.py", SITES, "sublayers = (0, 1)"),
        Mutation("once in a block is at the first sublayer", "nn/patch.py", SITES, SITES.replace("(1,)", "(0,)")),
    ],
    "In parallel": [
        Mutation("after the activation it does nothing", "nn/patch_kinds.py", *nothing_at("post_act")),
        Mutation("in parallel it reads what comes to its place", "nn/patch_kinds.py", ACT,
                 ACT.replace("self.net(layer_input.current)", "self.net(h)")),
        Mutation("in parallel it stands for what comes to its place", "nn/patch_kinds.py", ACT,
                 ACT.replace("h + self.net(layer_input.current)", "self.net(layer_input.current)")),
        Mutation("in parallel it always has the inner skip", "nn/patch_kinds.py",
                 "residual=config.inner_skip if parallel else True", "residual=True"),
        Mutation("in series it may stand after the activation", "config/patch.py",
                 'if self.insertion == "serial" and self.position == "post_act":', "if False:"),
    ],
    "It starts near the identity": [
        Mutation("what should start at zero is random, and the other way round", "nn/patch_kinds.py",
                 'if init == "identity":', 'if init != "identity":'),
        Mutation("the second map of a bottleneck starts as torch draws it", "nn/patch_kinds.py", DRAWN,
                 "generator=generator)"),
        Mutation("both maps start at zero, so that nothing is ever learned", "nn/patch_kinds.py", DRAWN,
                 DRAWN + "\n        _initialise(self.down.weight, init, generator)"),
        Mutation("a random start is a large one", "nn/patch_kinds.py", "RANDOM_STD = 0.02", "RANDOM_STD = 2.0"),
        Mutation("the start is random unless asked otherwise", "config/patch.py",
                 'init: Literal["identity", "random"] = Field(\n        default="identity"',
                 'init: Literal["identity", "random"] = Field(\n        default="random"'),
    ],
    "Other small networks": [
        Mutation("LoRA does nothing", "nn/patch_kinds.py", "out: Tensor = h + self.up(layer_input.through(self.down))",
                 "out: Tensor = h"),
        Mutation("LoRA reads the present position only", "nn/patch_kinds.py",
                 "self.up(layer_input.through(self.down))",
                 "self.up(layer_input.current @ self.down.weight[:, :, -1].T)"),
        Mutation("scale-shift does not scale", "nn/patch_kinds.py", SCALED, "return h + self.shift"),
        Mutation("scale-shift does not shift", "nn/patch_kinds.py", SCALED, "return h * (1.0 + self.gain)"),
    ],
    "Only patch and head are trained": [
        Mutation("the patch is not trained", "training/strategies.py", '"patch": self.patch, "head"',
                 '"patch": None, "head"'),
        Mutation("the head is not trained", "training/strategies.py", '"head": self.head, ', '"head": None, '),
        Mutation("a bundle loses its own blocks", "artifacts/bundle_io.py",
                 'parts["backbone"] = self.backbone.modules_of(self.unshared)', "pass"),
        Mutation("a bundle loses its patch", "artifacts/bundle_io.py", 'parts["patch"] = self.patch', "pass"),
        Mutation("a bundle holds the whole backbone", "artifacts/bundle_io.py",
                 "self.backbone.modules_of(self.unshared)\n        return nn.ModuleDict(parts)",
                 "self.backbone\n        return nn.ModuleDict(parts)"),
    ],
    "Many tasks share one trunk": [
        Mutation("every row goes through the first patch", "nn/bank.py",
                 "return RowPatches(self.template, self.stacked, self._at, which)",
                 "return RowPatches(self.template, self.stacked, self._at, None if which is None else 0 * which)"),
        Mutation("a row without a patch gets that of another task", "nn/bank.py", "parameter.zero_()", "pass"),
        Mutation("rows that were sorted come back in another order", "nn/batched_patches.py",
                 "view(-1, *like.shape[1:]).index_select(0, self.place)", "view(-1, *like.shape[1:])[: len(like)]"),
        Mutation("the bias before the activation is forgotten", "nn/batched_patches.py",
                 "between = self.activation(torch.bmm(x, down.transpose(1, 2)).add_(shift))",
                 "between = self.activation(torch.bmm(x, down.transpose(1, 2)))"),
        Mutation("the norms are those of the trunk", "nn/batched_patches.py",
                 'weight = norm.weight + self._weight_of_rows("norm.weight")',
                 'weight = norm.weight + 0 * self._weight_of_rows("norm.weight")'),
    ],
    "One user model is configured on the fly": [
        Mutation("all bundles of a group answer with the first one's patch", "serving/bundle_groups.py",
                 "Place(group, slots[member.version], ", "Place(group, 0, "),
        Mutation("tasks of one pass are answered without their patch", "serving/bundle_groups.py",
                 "return self.bank.rows(torch.tensor(slots, device=device))", "return None"),
        Mutation("who asked before is answered by the bundles of now", "serving/engine.py",
                 "vectors = self._reader.read(prepared, streams)",
                 "now = self.snapshot\n"
                 "        prepared = [replace(p, snapshot=now, tasks=now.chosen(p.question)) for p in prepared]\n"
                 "        vectors = self._reader.read(prepared, streams)"),
    ],
}  # fmt: skip
