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
    inputs = {
        "hidden": torch.randn(rows, channels, **draw),
        "positives": torch.randint(items, (rows,), generator=generator),
        "weight": torch.randn(items, channels, **draw),
        "bias": torch.randn(items, **draw),
    }
    if name == "sampled":  # an item drawn twice may have two expected counts: nothing says that it may not
        inputs["negatives"] = torch.randint(items, (negatives,), generator=generator)
        inputs["log_expected"] = 3.0 * torch.randn(negatives, **draw)
    return inputs


def differentiate(loss: Callable[..., Tensor], inputs: Inputs, wanted=FLOATS, by: float = 1.0) -> tuple[Tensor, Inputs]:
    """The loss, and `by` times its gradients."""
    leaves = {key: inputs[key].detach().requires_grad_(key in wanted) for key in FLOATS}
    actual = loss(**{**inputs, **leaves})
    (actual * by).backward()
    return actual.detach(), {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}


def assert_agrees(name: str, inputs: Inputs, bound: float, by: float = 1.0) -> None:
    actual, reference = (differentiate(loss, inputs, by=by) for loss in PAIRS[name])
    assert_close(actual, reference, bound)


def assert_close(actual: tuple[Tensor, Inputs], wanted: tuple[Tensor, Inputs], bound: float) -> None:
    assert abs(float(actual[0]) - float(wanted[0])) <= bound * (1.0 + abs(float(wanted[0])))
    assert actual[1].keys() == wanted[1].keys()
    for key, gradient in wanted[1].items():
        assert actual[1][key].dtype == gradient.dtype
        off = (actual[1][key] - gradient).double().norm() / (1e-2 + gradient.double().norm())
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
        for result in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(result, Tensor):
                self.largest = max(self.largest, result.numel())
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
    inputs = make(name, rows, items, 3, negatives, seed, dtype)
    with chunks_of(chunk):
        assert_agrees(name, inputs, bound)


@every_loss
@pytest.mark.parametrize("rows", [511, 512, 513, 1025])
def test_it_equals_the_reference_in_chunks_of_the_true_size(name, rows):
    assert_agrees(name, make(name, rows, 700, 16, 400, 1, torch.float32), 1e-5)


@pytest.mark.quick_cases(1)
@every_loss
@given(**sizes)
def test_its_gradients_are_those_of_differences(name, rows, items, negatives, chunk, seed):
    inputs = make(name, min(rows, 4), items, 2, negatives, seed)
    leaves = [inputs[key].requires_grad_() for key in FLOATS]
    with chunks_of(chunk):
        assert torch.autograd.gradcheck(
            lambda *values: PAIRS[name].chunked(**{**inputs, **dict(zip(FLOATS, values, strict=True))}), leaves
        )


@every_loss
def test_it_takes_hidden_states_that_are_not_contiguous(name):
    inputs = make(name, 40, 30, 8, 20, 2)
    inputs["hidden"] = inputs["hidden"].T.contiguous().T
    assert not inputs["hidden"].is_contiguous()
    assert_agrees(name, inputs, 1e-12)


@every_loss
def test_huge_logits_do_not_overflow(name):
    inputs = make(name, 20, 30, 8, 20, 3, torch.float32)
    inputs["hidden"] = 1e4 * inputs["hidden"]
    actual = differentiate(PAIRS[name].chunked, inputs)
    assert all(gradient.isfinite().all() for gradient in actual[1].values())
    assert_close(actual, differentiate(PAIRS[name].reference, inputs), 2e-3)  # a logit of 5e4 is rounded by 2e-3


def test_expected_counts_far_apart_do_not_underflow():
    inputs = make("sampled", 6, 2, 3, 40, 4, torch.float32)
    inputs["log_expected"] = torch.where(inputs["negatives"] == 0, 0.0, 200.0) + inputs["log_expected"]
    inputs["bias"] = torch.tensor([0.0, 200.0])
    assert_agrees("sampled", inputs, 1e-5)


def test_a_row_of_nothing_but_accidental_hits_costs_nothing():
    inputs = make("sampled", 3, 10, 4, 5, 5, torch.float32)
    inputs["positives"] = torch.full((3,), 7)
    inputs["negatives"] = torch.full((5,), 7)
    loss, gradients = differentiate(chunked_sampled_softmax_loss, inputs)
    assert float(loss) == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_draws_of_the_sampler_among_a_large_catalogue():
    inputs = make("sampled", 600, 3000, 8, 1, 6, torch.float32)
    sampler, generator = LogUniformSampler(3000), torch.Generator().manual_seed(6)
    inputs["negatives"], inputs["positives"] = sampler.sample(500, generator), sampler.sample(600, generator)
    inputs["log_expected"] = sampler.log_expected(inputs["negatives"], 500)
    assert_agrees("sampled", inputs, 1e-5)


# ---------------------------------------------------------------- which gradients, and how often


@every_loss
@pytest.mark.parametrize("by", [1.0, -2.5, 0.0])
def test_gradients_are_multiplied_by_what_comes_from_above(name, by):
    assert_agrees(name, make(name, 12, 9, 3, 7, 0), 1e-12, by=by)


@every_loss
def test_a_second_backward_of_a_kept_graph_gives_the_same(name):
    inputs = make(name, 12, 9, 3, 7, 0)
    leaves = [inputs[key].requires_grad_() for key in FLOATS]
    loss = 3.0 * PAIRS[name].chunked(**inputs)
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_loss
def test_it_refuses_second_derivatives(name):
    inputs = make(name, 4, 5, 2, 3, 0)
    inputs["hidden"].requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(PAIRS[name].chunked(**inputs), inputs["hidden"], create_graph=True)


@every_loss
@pytest.mark.parametrize(
    ("wanted", "products"),  # (with the bias) of a chunk: logits; and to those of hidden states, and to the table's
    [(("hidden",), (1, 1)), (("weight",), (2, 0)), (("bias",), (1, 0)), (("hidden", "weight"), (2, 1))],
    ids=lambda value: "+".join(map(str, value)),
)
def test_only_the_gradients_that_are_wanted_are_made(name, wanted, products):
    inputs = make(name, 12, 9, 3, 7, 0)
    with chunks_of(4), Recorder() as recorder:
        actual = differentiate(PAIRS[name].chunked, inputs, wanted)
    assert_close(actual, differentiate(PAIRS[name].reference, inputs, wanted), 1e-12)
    assert set(actual[1]) == set(wanted)
    assert (recorder.calls["addmm"] + recorder.calls["addmm_"], recorder.calls["mm"]) == tuple(3 * n for n in products)


@every_loss
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_loss_is_made(name, mode):
    inputs = make(name, 12, 9, 3, 7, 0)
    for key in FLOATS:
        inputs[key].requires_grad_()
    with mode(), chunks_of(4), Recorder() as recorder:
        loss = PAIRS[name].chunked(**inputs)
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(float(PAIRS[name].reference(**inputs).detach()), abs=1e-12)
    assert (recorder.calls["addmm"], recorder.calls["addmm_"], recorder.calls["mm"]) == (3, 0, 0)


# ---------------------------------------------------------------- precision, determinism, memory


@every_loss
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_only_products_are_in_bfloat16(name, hidden_dtype):
    inputs = make(name, 600, 400, 32, 300, 0, torch.float32)
    inputs["hidden"] = (0.5 * inputs["hidden"]).to(hidden_dtype)
    wanted = differentiate(PAIRS[name].reference, {**inputs, "hidden": inputs["hidden"].float()})
    with torch.autocast("cpu", torch.bfloat16), Recorder() as recorder:
        actual = differentiate(PAIRS[name].chunked, inputs)
    assert actual[0].dtype == torch.float32
    assert float(actual[0]) == pytest.approx(float(wanted[0]), rel=1e-2)
    for key, gradient in wanted[1].items():
        assert actual[1][key].dtype == inputs[key].dtype
        assert float(torch.cosine_similarity(actual[1][key].double().flatten(), gradient.double().flatten(), 0)) > 0.999
    assert recorder.takes["mm"] == {torch.bfloat16}
    assert recorder.takes["softmax"] == {torch.float32}
    assert recorder.calls["addmm"] == recorder.calls["addmm_"] == 0


@every_loss
def test_half_precision_holds_gradients_that_a_loss_scaler_enlarges(name):
    inputs = make(name, 500, 40, 8, 30, 0, torch.float32)
    inputs["weight"] = 1e-4 * inputs["weight"]  # gradients of 1e-7: next to nothing in half precision
    wanted = differentiate(PAIRS[name].reference, inputs, by=2.0**16)[1]["hidden"]
    actual = differentiate(PAIRS[name].chunked, {**inputs, "hidden": inputs["hidden"].half()}, by=2.0**16)[1]["hidden"]
    assert actual.dtype == torch.half
    assert float((actual.float() - wanted).norm() / wanted.norm()) < 2e-3


@every_loss
def test_it_gives_the_same_bits_each_time(name):
    inputs = make(name, 3000, 50, 64, 400, 0, torch.float32)  # positives of 60 rows add up in every row of the table
    torch.use_deterministic_algorithms(True)  # new tensors are filled with NaN, too: none is read before it is written
    try:
        first, second = (differentiate(PAIRS[name].chunked, inputs) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][key], second[1][key]) for key in FLOATS)
    assert_close(first, differentiate(PAIRS[name].reference, inputs), 1e-5)


@every_loss
def test_all_logits_never_exist_at_once(name, monkeypatch):
    rows, items, negatives = 900, 1500, 1200
    monkeypatch.setattr(softmax, "LOGITS", 2**16)
    inputs = make(name, rows, items, 16, negatives, 0, torch.float32)
    all_logits = rows * (items if name == "full" else negatives)
    largest = []
    for loss in PAIRS[name]:
        with Recorder() as recorder:
            differentiate(loss, inputs)
        largest.append(recorder.largest)
    assert largest[0] <= 2**16
    assert largest[1] >= all_logits


@pytest.mark.parametrize(("items", "rows"), [(100, 512), (20_000, 209), (200_000, 32)])
def test_a_chunk_has_as_many_rows_as_the_table_leaves_room_for(items, rows):
    inputs = make("full", 513, items, 1, 1, 0, torch.float32)
    with torch.no_grad(), Recorder() as recorder:
        chunked_full_softmax_loss(**inputs)
    assert recorder.calls["addmm"] == -(-513 // rows)


@pytest.mark.parametrize("name", PAIRS)
def test_backward_may_run_twice_and_adds_up(name: str) -> None:
    """What is kept from the forward pass is handed out as a gradient, but must not be added to."""
    once, twice = make(name, 12, 9, 3, 7, 0), make(name, 12, 9, 3, 7, 0)
    for inputs, times in ((once, 1), (twice, 2)):
        for key in ("hidden", "weight", "bias"):
            inputs[key].requires_grad_(True)
        loss = PAIRS[name].chunked(**inputs)
        for _ in range(times):
            loss.backward(retain_graph=True)
    for key in ("hidden", "weight", "bias"):
        torch.testing.assert_close(twice[key].grad, 2 * once[key].grad, rtol=1e-12, atol=1e-12)
