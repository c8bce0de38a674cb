"""The losses in chunks against their formulas: the same values and gradients, in less memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from oracles.softmax_losses import full_softmax_loss, sampled_softmax_loss
from peterrec.nn import chunked_losses as softmax
from peterrec.nn.chunked_losses import chunked_full_softmax_loss, chunked_sampled_softmax_loss
from peterrec.nn.losses import LogUniformSampler


class Pair(NamedTuple):
    chunked: Callable[..., Tensor]
    reference: Callable[..., Tensor]


PAIRS = {
    "full": Pair(chunked_full_softmax_loss, full_softmax_loss),
    "sampled": Pair(chunked_sampled_softmax_loss, sampled_softmax_loss),
}
every_loss = pytest.mark.parametrize("name", PAIRS)
FLOATS = ("hidden", "weight", "bias")
Inputs = dict[str, Tensor]


def make(name: str, rows: int, items: int, channels: int, negatives: int, seed: int, dtype=torch.float64) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": dtype}
    some = {
        "hidden": torch.randn(rows, channels, **draw),
        "positives": torch.randint(items, (rows,), generator=generator),
        "weight": torch.randn(items, channels, **draw),
        "bias": torch.randn(items, **draw),
    }
    if name == "sampled":  # an item drawn twice may have two expected counts: nothing says that it may not
        some["negatives"] = torch.randint(items, (negatives,), generator=generator)
        some["log_expected"] = 3.0 * torch.randn(negatives, **draw)
    return some


def differentiate(loss: Callable[..., Tensor], some: Inputs, wanted=FLOATS, by: float = 1.0) -> tuple[Tensor, Inputs]:
    """The loss, and `by` times its gradients."""
    leaves = {key: some[key].detach().requires_grad_(key in wanted) for key in FLOATS}
    found = loss(**{**some, **leaves})
    (found * by).backward()
    return found.detach(), {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}


def assert_agrees(name: str, some: Inputs, bound: float, by: float = 1.0) -> None:
    found, reference = (differentiate(loss, some, by=by) for loss in PAIRS[name])
    assert_close(found, reference, bound)


def assert_close(found: tuple[Tensor, Inputs], wanted: tuple[Tensor, Inputs], bound: float) -> None:
    assert abs(float(found[0]) - float(wanted[0])) <= bound * (1.0 + abs(float(wanted[0])))
    assert found[1].keys() == wanted[1].keys()
    for key, gradient in wanted[1].items():
        assert found[1][key].dtype == gradient.dtype
        off = (found[1][key] - gradient).double().norm() / (1e-2 + gradient.double().norm())
        assert float(off) <= bound, key


@contextmanager
def chunks_of(rows: int) -> Iterator[None]:
    """Chunks of so many rows, whatever the size of the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "MOST_ROWS", rows)
        patch.setattr(softmax, "LEAST_ROWS", rows)
        yield


class Recorder(TorchDispatchMode):
    """Notes what torch does: its operations, the dtypes they take, and the largest tensor that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.takes: dict[str, set[torch.dtype]] = {}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        self.calls[operation] += 1
        self.takes.setdefault(operation, set()).update(value.dtype for value in args if isinstance(value, Tensor))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, Tensor):
                self.largest = max(self.largest, made.numel())
        return out


sizes = {
    "rows": st.integers(1, 9),
    "items": st.integers(1, 12),
    "negatives": st.integers(1, 30),
    "chunk": st.integers(1, 5),
    "seed": st.integers(0, 99),
}

# ---------------------------------------------------------------- the same values


@every_loss
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@given(**sizes)
def test_it_equals_the_reference(name, dtype, bound, rows, items, negatives, chunk, seed):
    some = make(name, rows, items, 3, negatives, seed, dtype)
    with chunks_of(chunk):
        assert_agrees(name, some, bound)


@every_loss
@pytest.mark.parametrize("rows", [511, 512, 513, 1025])
def test_it_equals_the_reference_in_chunks_of_the_true_size(name, rows):
    assert_agrees(name, make(name, rows, 700, 16, 400, 1, torch.float32), 1e-5)


@every_loss
@given(**sizes)
def test_its_gradients_are_those_of_differences(name, rows, items, negatives, chunk, seed):
    some = make(name, min(rows, 4), items, 2, negatives, seed)
    leaves = [some[key].requires_grad_() for key in FLOATS]
    with chunks_of(chunk):
        assert torch.autograd.gradcheck(
            lambda *values: PAIRS[name].chunked(**{**some, **dict(zip(FLOATS, values, strict=True))}), leaves
        )


@every_loss
def test_it_takes_hidden_states_that_are_not_contiguous(name):
    some = make(name, 40, 30, 8, 20, 2)
    some["hidden"] = some["hidden"].T.contiguous().T
    assert not some["hidden"].is_contiguous()
    assert_agrees(name, some, 1e-12)


@every_loss
def test_huge_logits_do_not_overflow(name):
    some = make(name, 20, 30, 8, 20, 3, torch.float32)
    some["hidden"] = 1e4 * some["hidden"]
    found = differentiate(PAIRS[name].chunked, some)
    assert all(gradient.isfinite().all() for gradient in found[1].values())
    assert_close(found, differentiate(PAIRS[name].reference, some), 2e-3)  # a logit of 5e4 is rounded by 2e-3


def test_expected_counts_far_apart_do_not_underflow():
    some = make("sampled", 6, 2, 3, 40, 4, torch.float32)
    some["log_expected"] = torch.where(some["negatives"] == 0, 0.0, 200.0) + some["log_expected"]
    some["bias"] = torch.tensor([0.0, 200.0])
    assert_agrees("sampled", some, 1e-5)


def test_a_row_of_nothing_but_accidental_hits_costs_nothing():
    some = make("sampled", 3, 10, 4, 5, 5, torch.float32)
    some["positives"] = torch.full((3,), 7)
    some["negatives"] = torch.full((5,), 7)
    loss, gradients = differentiate(chunked_sampled_softmax_loss, some)
    assert float(loss) == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_draws_of_the_sampler_among_a_large_catalogue():
    some = make("sampled", 600, 3000, 8, 1, 6, torch.float32)
    sampler, generator = LogUniformSampler(3000), torch.Generator().manual_seed(6)
    some["negatives"], some["positives"] = sampler.sample(500, generator), sampler.sample(600, generator)
    some["log_expected"] = sampler.log_expected(some["negatives"], 500)
    assert_agrees("sampled", some, 1e-5)


# ---------------------------------------------------------------- which gradients, and how often


@every_loss
@pytest.mark.parametrize("by", [1.0, -2.5, 0.0])
def test_gradients_are_multiplied_by_what_comes_from_above(name, by):
    assert_agrees(name, make(name, 12, 9, 3, 7, 0), 1e-12, by=by)


@every_loss
def test_a_second_backward_of_a_kept_graph_gives_the_same(name):
    some = make(name, 12, 9, 3, 7, 0)
    leaves = [some[key].requires_grad_() for key in FLOATS]
    loss = 3.0 * PAIRS[name].chunked(**some)
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_loss
def test_it_refuses_second_derivatives(name):
    some = make(name, 4, 5, 2, 3, 0)
    some["hidden"].requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(PAIRS[name].chunked(**some), some["hidden"], create_graph=True)


@every_loss
@pytest.mark.parametrize(
    ("wanted", "products"),  # (with the bias) of a chunk: logits; and to those of hidden states, and to the table's
    [(("hidden",), (1, 1)), (("weight",), (2, 0)), (("bias",), (1, 0)), (("hidden", "weight"), (2, 1))],
    ids=lambda value: "+".join(map(str, value)),
)
def test_only_the_gradients_that_are_wanted_are_made(name, wanted, products):
    some = make(name, 12, 9, 3, 7, 0)
    with chunks_of(4), Recorder() as recorder:
        found = differentiate(PAIRS[name].chunked, some, wanted)
    assert_close(found, differentiate(PAIRS[name].reference, some, wanted), 1e-12)
    assert set(found[1]) == set(wanted)
    assert (recorder.calls["addmm"] + recorder.calls["addmm_"], recorder.calls["mm"]) == tuple(3 * n for n in products)


@every_loss
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_loss_is_made(name, mode):
    some = make(name, 12, 9, 3, 7, 0)
    for key in FLOATS:
        some[key].requires_grad_()
    with mode(), chunks_of(4), Recorder() as recorder:
        loss = PAIRS[name].chunked(**some)
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(float(PAIRS[name].reference(**some).detach()), abs=1e-12)
    assert (recorder.calls["addmm"], recorder.calls["addmm_"], recorder.calls["mm"]) == (3, 0, 0)


# ---------------------------------------------------------------- precision, determinism, memory


@every_loss
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_only_products_are_in_bfloat16(name, hidden_dtype):
    some = make(name, 600, 400, 32, 300, 0, torch.float32)
    some["hidden"] = (0.5 * some["hidden"]).to(hidden_dtype)
    wanted = differentiate(PAIRS[name].reference, {**some, "hidden": some["hidden"].float()})
    with torch.autocast("cpu", torch.bfloat16), Recorder() as recorder:
        found = differentiate(PAIRS[name].chunked, some)
    assert found[0].dtype == torch.float32
    assert float(found[0]) == pytest.approx(float(wanted[0]), rel=1e-2)
    for key, gradient in wanted[1].items():
        assert found[1][key].dtype == some[key].dtype
        assert float(torch.cosine_similarity(found[1][key].double().flatten(), gradient.double().flatten(), 0)) > 0.999
    assert recorder.takes["mm"] == {torch.bfloat16}
    assert recorder.takes["softmax"] == {torch.float32}
    assert recorder.calls["addmm"] == recorder.calls["addmm_"] == 0


@every_loss
def test_half_precision_holds_gradients_that_a_loss_scaler_enlarges(name):
    some = make(name, 500, 40, 8, 30, 0, torch.float32)
    some["weight"] = 1e-4 * some["weight"]  # gradients of 1e-7: next to nothing in half precision
    wanted = differentiate(PAIRS[name].reference, some, by=2.0**16)[1]["hidden"]
    found = differentiate(PAIRS[name].chunked, {**some, "hidden": some["hidden"].half()}, by=2.0**16)[1]["hidden"]
    assert found.dtype == torch.half
    assert float((found.float() - wanted).norm() / wanted.norm()) < 2e-3


@every_loss
def test_it_gives_the_same_bits_each_time(name):
    some = make(name, 3000, 50, 64, 400, 0, torch.float32)  # positives of 60 rows add up in every row of the table
    torch.use_deterministic_algorithms(True)  # new tensors are filled with NaN, too: none is read before it is written
    try:
        first, second = (differentiate(PAIRS[name].chunked, some) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][key], second[1][key]) for key in FLOATS)
    assert_close(first, differentiate(PAIRS[name].reference, some), 1e-5)


@every_loss
def test_all_logits_never_exist_at_once(name, monkeypatch):
    rows, items, negatives = 900, 1500, 1200
    monkeypatch.setattr(softmax, "LOGITS", 2**16)
    some = make(name, rows, items, 16, negatives, 0, torch.float32)
    all_logits = rows * (items if name == "full" else negatives)
    largest = []
    for loss in PAIRS[name]:
        with Recorder() as recorder:
            differentiate(loss, some)
        largest.append(recorder.largest)
    assert largest[0] <= 2**16
    assert largest[1] >= all_logits


@pytest.mark.parametrize(("items", "rows"), [(100, 512), (20_000, 209), (200_000, 32)])
def test_a_chunk_has_as_many_rows_as_the_table_leaves_room_for(items, rows):
    some = make("full", 513, items, 1, 1, 0, torch.float32)
    with torch.no_grad(), Recorder() as recorder:
        chunked_full_softmax_loss(**some)
    assert recorder.calls["addmm"] == -(-513 // rows)


@pytest.mark.parametrize("name", PAIRS)
def test_backward_may_run_twice_and_adds_up(name: str) -> None:
    """What is kept from the forward pass is handed out as a gradient, but must not be added to."""
    once, twice = make(name, 12, 9, 3, 7, 0), make(name, 12, 9, 3, 7, 0)
    for some, times in ((once, 1), (twice, 2)):
        for key in ("hidden", "weight", "bias"):
            some[key].requires_grad_(True)
        loss = PAIRS[name].chunked(**some)
        for _ in range(times):
            loss.backward(retain_graph=True)
    for key in ("hidden", "weight", "bias"):
        torch.testing.assert_close(twice[key].grad, 2 * once[key].grad, rtol=1e-12, atol=1e-12)
