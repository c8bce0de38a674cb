"""The worker that runs a plain form of the published network: what one writes first, and what the code of Tenrec does.

Called "plain form (Tenrec)" in tables. Written from the description in the papers (NextItNet, Yuan et al., WSDM 2019;
PeterRec, Yuan et al., SIGIR 2020), not from anybody's code. What makes it plain: convolutions over (B, C, T) with a
transpose before and after each, every position of the window computed, and the last linear layer (over all items, or
over the classes of a task) applied to every position, of which the last is then taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from worker import SPECIAL, Job, Sizes, histories, serve, tune

TASK_TOKEN = 1


class Bottleneck(nn.Module):
    """A patch in series: h + up(relu(down(h))), two convolutions of one tap (PeterRec, section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv1d(channels, channels // 8, 1)
        self.up = nn.Conv1d(channels // 8, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.up(F.relu(self.down(h)))
        return out


class Block(nn.Module):
    """x plus two causal convolutions of x, the second with twice the dilation; each with LayerNorm and ReLU."""

    def __init__(self, sizes: Sizes, dilation: int, *, patched: bool) -> None:
        super().__init__()
        channels, kernel = sizes.channels, sizes.kernel
        self.pads = [(kernel - 1) * dilation, (kernel - 1) * 2 * dilation]
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, kernel, dilation=d * dilation) for d in (1, 2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.patches = nn.ModuleList(Bottleneck(channels) if patched else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x  # (B, T, C)
        for pad, conv, norm, patch in zip(self.pads, self.convs, self.norms, self.patches, strict=True):
            h = patch(conv(F.pad(h.transpose(1, 2), (pad, 0))))  # (B, C, T)
            h = F.relu(norm(h.transpose(1, 2)))
        return x + h


class Network(nn.Module):
    """Embedding, blocks and a linear layer at every position."""

    def __init__(self, sizes: Sizes, outputs: int, *, patched: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.items + SPECIAL, sizes.channels, padding_idx=0)
        self.blocks = nn.Sequential(*(Block(sizes, dilation, patched=patched) for dilation in sizes.dilations))
        self.final = nn.Linear(sizes.channels, outputs)

    def states(self, tokens: Tensor) -> Tensor:
        """Return the hidden state of every position, (B, T, C)."""
        out: Tensor = self.blocks(self.embedding(tokens))
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.final(self.states(tokens))
        return out


def represent(sizes: Sizes) -> Job:
    """The state at a token after the last event."""
    network, tokens = Network(sizes, 1).eval(), _with_task_token(sizes)
    return torch.no_grad()(lambda: network.states(tokens)[:, -1])


def rank(sizes: Sizes) -> Job:
    """Scores of all items at every position; the best of the last one."""
    network, tokens = Network(sizes, sizes.items).eval(), torch.from_numpy(histories(sizes))
    return torch.no_grad()(lambda: network(tokens)[:, -1].topk(sizes.top, dim=1))


def adapt(sizes: Sizes) -> Job:
    """A step of Adam on patches and classifier, with everything else frozen."""
    network = Network(sizes, sizes.classes, patched=True)
    trained = [*network.final.parameters()]
    for module in network.modules():
        if isinstance(module, Bottleneck):
            trained += module.parameters()
    network.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(trained)
    tokens = _with_task_token(sizes)
    labels = torch.randint(sizes.classes, (sizes.batch,), generator=torch.Generator().manual_seed(0))

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(tokens)[:, -1], labels).backward()
        optimizer.step()

    return run


def _with_task_token(sizes: Sizes) -> Tensor:
    return F.pad(torch.from_numpy(histories(sizes)), (0, 1), value=TASK_TOKEN)


if __name__ == "__main__":
    tune()
    serve({"represent": represent, "rank": rank, "adapt": adapt})
