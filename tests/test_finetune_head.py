"""Heads compared with autograd and torch.optim.SGD, and with themselves beside other heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_oracles import CPU, LOSSES, batches, options, taught, taught_by_autograd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear, log_softmax

from finetune.heads.binary import binary_gradient
from finetune.heads.losses import (
    Loss,
    balanced_softmax,
    class_balanced,
    focal,
)
from finetune.heads.options import HeadOptions
from finetune.heads.scaled import TRAINED
from finetune.heads.stacked import StackedHeads, padded
from finetune.heads.threads import Threads, single_threaded
from finetune.training.head_pool import HeadPool


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", LOSSES)
def test_steps_equal_autograd_and_torch_sgd(name, weight_decay, schedule):
    rng = np.random.default_rng(0)
    steps = 20
    more = {"weight_decay": weight_decay, "schedule": schedule, "n_iterations": steps}
    head = options(rng, loss=LOSSES[name], **more)
    made = batches(rng, steps, 12)
    parameters = [torch.from_numpy(p).clone().requires_grad_() for p in (head.weight, head.bias)]
    layer = [{"params": parameters}]
    expected = taught_by_autograd(name, lambda x: linear(x, *parameters), layer, made, weight_decay, schedule)
    heads = StackedHeads([head], CPU)
    losses = taught(heads, made)
    # shifts and class weights are float32: a few 1e-8
    torch.testing.assert_close(losses[:, 0], expected, rtol=1e-6, atol=1e-6)
    for found, wanted in zip(heads.layers()[0], parameters, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-6, atol=1e-6)


def test_max_norm_bounds_every_class_and_only_long_ones():
    rng = np.random.default_rng(0)
    head = replace(options(rng, lr=1e-9), max_norm=2.5)
    lengths = np.linalg.norm(head.weight, axis=1)
    assert lengths.max() > 2.5 > lengths.min()
    heads = StackedHeads([head], CPU)
    pooled, label = batches(rng, 1, 12)
    heads.train_on(padded(pooled), label, 0)
    weight, bias = heads.layers()[0]
    expected = head.weight * np.minimum(1, 2.5 / lengths)[:, None]
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), head.bias, rtol=1e-6)


def test_a_confident_head_has_a_finite_loss():
    """Probabilities below the smallest float still have a logarithm."""
    weight = np.array([[500.0], [0.0]], np.float32)
    heads = StackedHeads([HeadOptions(weight, np.zeros(2, np.float32), Loss(), 1e-9, 0.9)], CPU)
    loss = heads.train_on(padded(torch.ones(1, 1, 1)), torch.tensor([[1]]), 0)
    assert loss.item() == pytest.approx(500)


def test_focal_loss_of_a_certain_row_is_zero_and_so_is_its_gradient():
    weight = np.array([[500.0], [0.0]], np.float32)
    heads = StackedHeads([HeadOptions(weight, np.zeros(2, np.float32), focal(0.5), 1.0, 0.9)], CPU)
    loss = heads.train_on(padded(torch.ones(1, 1, 1)), torch.tensor([[0]]), 0)
    assert loss.item() == 0
    assert heads.layers()[0][0].tolist() == weight.tolist()


@pytest.mark.parametrize("spread", [1.0, 10.0, 40.0])
def test_binary_cross_entropy_of_certain_rows_is_exact_in_single_precision(spread):
    """In float32, 1 − p has no digits left for p near 1; autograd on log-sums in double precision has."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(spread * rng.random((3, 6, 40))).requires_grad_()
    label = torch.from_numpy(rng.integers(6, size=(3, 1, 40)))
    others = z[:, None].expand(3, 6, 6, 40).masked_fill(torch.eye(6, dtype=bool)[:, :, None], -torch.inf)
    log_rest = others.logsumexp(2) - z.logsumexp(1, keepdim=True)
    row = z.log_softmax(1).gather(1, label) + log_rest.scatter(1, label, 0).sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(-row.sum(), z)
    found = z.detach().float().log_softmax(1)
    fit = torch.empty(3, 1, 40)
    binary_gradient(found, label, fit, torch.empty_like(found))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(fit.double(), row.detach(), rtol=1e-5, atol=1e-5)


def test_the_given_parameters_are_left_alone():
    rng = np.random.default_rng(0)
    head = options(rng)
    before = head.weight.copy()
    pooled, label = batches(rng, 3, 4)
    StackedHeads([head], CPU).train_on(padded(pooled), label, 0)
    np.testing.assert_array_equal(head.weight, before)


def trained(heads: list[HeadOptions], pooled: torch.Tensor, label: torch.Tensor, threads: int, window: int):
    """Weights and biases after training window by window, with so many threads."""
    pool = Threads(threads)
    torch.set_num_threads(1)
    stacks = HeadPool(heads, CPU, pool)
    for start in range(0, len(pooled), window):
        part = slice(start, start + window)
        stacks.train_on(FakeWindow(padded(pooled[part]), label[part], start))
    pool.close()
    return [torch.cat([weight, bias[:, None]], 1) for weight, bias in stacks.layers()]


class FakeWindow:
    def __init__(self, pooled, label, start):
        self.pooled, self.label, self.start, self.second = pooled, label, start, None

    def arrive(self):
        """It is there."""


@given(
    k=st.integers(2, 300),
    c=st.integers(1, 600),
    b=st.integers(1, 40).map(lambda n: 2 * n),
    n_heads=st.integers(2, 9),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_a_head_has_the_same_bits_alone_and_in_any_company(k, c, b, n_heads, seed):
    """Stacked or alone, beside other losses, in other windows, on more threads."""
    rng = np.random.default_rng(seed)
    per_class = rng.random(k).astype(np.float32)
    losses = [Loss(), focal(1.0), Loss(shift=per_class), Loss(against_rest=True), Loss(smoothing=per_class)]
    heads = [
        options(rng, k, c, np.float32, lr=0.1 / (i + 1), loss=losses[rng.integers(5)]) for i in range(n_heads)
    ]
    pooled, label = batches(rng, 5, b, k, c, np.float32)
    together = trained(heads, pooled, label, threads=1, window=5)
    spread = trained(heads, pooled, label, threads=3, window=2)
    for i, head in enumerate(heads):
        alone = trained([head], pooled, label, threads=2, window=3)[0]
        assert torch.equal(alone, together[i])
        assert torch.equal(alone, spread[i])


@pytest.mark.parametrize("name", [*LOSSES, *TRAINED, "decay", "max norm", "rarely cut", "cosine"])
def test_every_kind_of_head_has_the_same_bits_in_a_stack(name):
    rng = np.random.default_rng(0)
    more = {
        **{kind: {"trainable": kind} for kind in TRAINED},
        "decay": {"weight_decay": 0.01},
        "max norm": {"max_norm": 1.0},
        "rarely cut": {"max_norm": 1.0, "max_norm_every": 4, "n_iterations": 9},
        "cosine": {"schedule": "cosine", "n_iterations": 9},
    }.get(name, {"loss": LOSSES.get(name)})
    heads = [options(rng, dtype=np.float32, lr=0.1 / (i + 1), **more) for i in range(7)]
    pooled, label = batches(rng, 9, 32, dtype=np.float32)
    together = trained(heads, pooled, label, threads=2, window=4)
    for head, found in zip(heads, together, strict=True):
        assert torch.equal(trained([head], pooled, label, threads=1, window=9)[0], found)


def test_a_large_head_is_shared_by_threads_without_a_changed_bit(monkeypatch):
    monkeypatch.setattr("finetune.training.head_pool.LEAST_SHARED", 1)
    rng = np.random.default_rng(0)
    heads = [options(rng, 700, 40, np.float32)]
    pooled, label = batches(rng, 5, 32, 700, 40, np.float32)
    found = [trained(heads, pooled, label, threads=n, window=5)[0] for n in (1, 2, 3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_state_goes_on_where_it_was():
    rng = np.random.default_rng(0)
    heads = [options(rng, dtype=np.float32, trainable=kind) for kind in ("fc", *TRAINED)]
    pooled, label = batches(rng, 10, 16, dtype=np.float32)
    pool = Threads(1)
    whole, first, second = (HeadPool(heads, CPU, pool) for _ in range(3))
    whole.train_on(FakeWindow(padded(pooled), label, 0))
    first.train_on(FakeWindow(padded(pooled[:4]), label[:4], 0))
    second.load_state(first.state())
    second.train_on(FakeWindow(padded(pooled[4:]), label[4:], 4))
    for a, b in zip(whole.layers(), second.layers(), strict=True):
        assert torch.equal(torch.cat([a[0], a[1][:, None]], 1), torch.cat([b[0], b[1][:, None]], 1))


def test_threads_do_all_the_work_and_tell_of_errors():
    done = []
    with single_threaded() as threads:
        assert torch.get_num_threads() == 1
        threads.each(done.append, range(10))
        with pytest.raises(ZeroDivisionError):
            threads.each(lambda n: 1 // n, [1, 2, 0])
    assert sorted(done) == list(range(10))


def test_prior_of_ones_changes_nothing():
    assert not balanced_softmax(np.ones(3), 2.0).shift.any()
    weight = class_balanced(np.full(4, 0.25), 100, 0.9, divide_by_weights=False).class_weight
    np.testing.assert_allclose(weight, 1, rtol=1e-6)
    assert log_softmax(torch.zeros(2), 0).exp().sum() == pytest.approx(1)
