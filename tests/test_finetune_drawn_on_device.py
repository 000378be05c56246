"""Plans drawn on the device where the features live; a CPU's tensors stand in for a GPU's."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import FinetuneConfig
from finetune.loading.drawn_ahead import DrawnAhead, draws_on_device
from finetune.loading.residency import HeldMaps
from finetune.methods.registry import METHODS
from finetune.mixing.fsa import augmentation_plan
from finetune.mixing.gaussians import ClassMoments, ClassNoise
from finetune.mixing.mixup import share_quantiles
from finetune.sampling.arrays import cut, on_host
from finetune.sampling.device_rng import DeviceRNG
from finetune.sampling.head_tail import HeadTail
from finetune.sampling.masks import generic_positions, specific_positions
from finetune.sampling.philox import KINDS, CounterRNG
from finetune.sampling.plan import Mixing, Plan, PlanInputs
from finetune.train import finetune
from finetune.training import trainer
from store.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TRAINED = [
    (name, one.name)
    for name in ("fsa", "h2t", "mixup", "remix", "plain", "tailcalib")
    for one in METHODS[name].samplings
]
PLACES = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=pytest.mark.cuda)], ids=str)
EDGES = (0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


@PLACES
@given(
    seed=st.sampled_from(EDGES) | st.integers(0, 2**64 - 1),
    kind=st.sampled_from(sorted(KINDS)),
    start=st.integers(0, 2**40),
    n=st.integers(0, 5),
    shape=st.lists(st.integers(0, 9), max_size=3),
)
@settings(deadline=None)
def test_a_device_makes_the_numbers_of_numpy(device, seed, kind, start, n, shape):
    expected = CounterRNG(seed).uniform(kind, start, start + n, *shape)
    found = DeviceRNG(seed, device).uniform(kind, start, start + n, *shape)
    assert (found.dtype, found.device) == (torch.float64, device)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


def made_inputs(n_positions: int, n_classes: int = 5, n_per_sample: int = 3, **changes: Any) -> PlanInputs:
    """A tail of two classes and of one row; maps of which some have no specific or no generic position."""
    random = np.random.default_rng(n_positions)
    label = np.repeat(np.arange(n_classes), [40, 30, 20, 6, 1])
    cam = random.random((len(label), 1, n_positions)).astype(np.float16)
    cam[::7] = 0.5
    others = [np.delete(np.arange(n_classes), c) for c in range(n_classes)]
    made = PlanInputs(
        label=label.astype(np.int32),
        head_tail=HeadTail(np.array([0, 1, 2]), np.array([3, 4])),
        confusing=np.array([random.permutation(of_class)[:3] for of_class in others]),
        specific=specific_positions(cam, 0.7),
        generic=generic_positions(cam, 0.2),
        batch_size=2 * 4 * (1 + n_per_sample),
        n_tail=4,
        augmented_per_sample=n_per_sample,
        tail_draw="classes",
        gamma=(0.0, 1.0),
        draws=CounterRNG(2**64 - 3),
    )
    return replace(made, **changes)


def arrays_of(value: Any) -> dict[str, Any]:
    """Every array of a plan, by name."""
    if not is_dataclass(value):
        return {"": value}
    parts = {f.name: arrays_of(getattr(value, f.name)) for f in fields(value)}
    return {f"{name}.{inner}": array for name, part in parts.items() for inner, array in part.items()}


def assert_same_plan(found: Plan, expected: Plan) -> None:
    found, expected = arrays_of(found), arrays_of(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array is None:
            assert found[name] is None
            continue
        if isinstance(array, ClassNoise):  # the same for all iterations
            assert found[name] is array
            continue
        here = on_host(found[name])
        assert here.dtype == array.dtype, name
        np.testing.assert_array_equal(here, array, err_msg=name)


@PLACES
@pytest.mark.parametrize("tail_draw", ["classes", "samples"])
@pytest.mark.parametrize(("method", "sampling"), TRAINED)
@pytest.mark.parametrize(
    "mixing",
    [
        Mixing(0.3, "tail", 3, 11, share_quantiles(0.7)),
        Mixing(1.0, "all", 11, 11, share_quantiles(2.0)),
        Mixing(0.7, "fill", 3, 11, share_quantiles(1.0)),
    ],
    ids=["tail", "all", "fill"],
)
def test_a_device_draws_the_same_plan(device, method, sampling, tail_draw, mixing):
    inputs = made_inputs(9, tail_draw=tail_draw)
    random = np.random.default_rng(0)
    pooled = random.normal(size=(len(inputs.label), 11)).astype(np.float32)
    moments = ClassMoments(pooled, inputs.label, 5)
    noise = ClassNoise(moments, 3, "full", 0.1)
    inputs = replace(inputs, mixing=replace(mixing, neighbours=moments.nearest(2), of_classes=noise))
    draw = METHODS[method].sampled(sampling).draw
    found = draw(inputs.on(device), 60, 130)
    assert found.row.device == device
    assert_same_plan(found, draw(inputs, 60, 130))
    assert_same_plan(cut(found, 7, 20), draw(inputs, 67, 80))


@PLACES
@pytest.mark.parametrize(
    "inputs",
    [
        made_inputs(2),  # one specific and one generic vector each
        made_inputs(300),  # positions of 16 bits, which torch hardly knows
        made_inputs(9, n_per_sample=5),  # more augmented samples than confusing classes
        made_inputs(9, gamma=(0.25, 0.25)),  # 2.25 specific vectors
        made_inputs(10, gamma=(0.25, 0.25)),  # 2.5: rounded to the even number
    ],
    ids=["two", "many", "more", "quarter", "half"],
)
def test_a_device_draws_the_same_plan_of_any_shape(device, inputs):
    assert_same_plan(augmentation_plan(inputs.on(device), 5, 9), augmentation_plan(inputs, 5, 9))


def test_windows_are_cut_from_plans_drawn_ahead():
    inputs, drawn = made_inputs(9), []

    def counted(inputs: PlanInputs, start: int, stop: int) -> Plan:
        drawn.append((start, stop))
        return augmentation_plan(inputs, start, stop)

    ahead, there = DrawnAhead(counted), inputs.on(CPU)
    windows = [(0, 64), (64, 100), (100, 1000), (1000, 1030), (1030, 5000), (100, 101)]
    for start, stop in windows:
        assert_same_plan(ahead(there, start, stop), augmentation_plan(inputs, start, stop))
    assert drawn == [(0, 1024), (1000, 2024), (1030, 5000), (100, 1124)]


@pytest.mark.parametrize(
    ("changes", "at_once"),
    [
        ({"batch_size": 2**24}, 1),
        ({"batch_size": 2**20}, 1),
        ({"batch_size": 2**20, "specific": None, "confusing": None}, 8),
        ({"batch_size": 2**16, "specific": None}, 2**7 // 3),  # three confusing classes for each
        ({"batch_size": 16, "mixing": Mixing(n_channels=2**15)}, 2**8),
    ],
)
def test_large_plans_are_drawn_in_smaller_pieces(changes, at_once):
    drawn, inputs = [], made_inputs(9, **changes)
    ahead = DrawnAhead(
        lambda _, start, stop: drawn.append((start, stop)) or Plan(np.zeros((stop - start, 1)))
    )
    ahead(inputs, 0, 1)
    assert drawn == [(0, at_once)]


@pytest.mark.parametrize("method", ["fsa", "crt", "balanced-softmax"])
def test_a_run_drawn_on_the_device_is_the_same_run(feature_store, tmp_path, quiet, monkeypatch, method):
    config = FinetuneConfig(str(feature_store), str(tmp_path / "host"), method, iterations=150, device="cpu")
    finetune(config, quiet)
    monkeypatch.setattr(trainer, "draws_on_device", lambda draw, *_: draw.anywhere)
    finetune(replace(config, out=str(tmp_path / "device")), quiet)
    for name in ("head.pt", "metrics.csv", "per_class.csv"):
        assert (tmp_path / "device" / name).read_bytes() == (tmp_path / "host" / name).read_bytes()


def test_a_run_that_diverges_on_the_device_names_the_same_rows(feature_store, tmp_path, quiet, monkeypatch):
    config, told = (
        FinetuneConfig(str(feature_store), lr=4e9, momentum=4e9, iterations=9, device="cpu", method="fsa"),
        [],
    )
    for place in ("host", "device"):
        with pytest.raises(UserError, match="diverged") as raised:
            finetune(replace(config, out=str(tmp_path / place)), quiet)
        told.append(str(raised.value).replace(place, ""))
        monkeypatch.setattr(trainer, "draws_on_device", lambda draw, *_: draw.anywhere)
    assert told[0] == told[1]


def test_where_plans_are_drawn():
    """On a GPU, if maps are there too; a draw of somebody else's knows arrays only."""
    on_host = HeldMaps(torch.zeros(4, 2))
    on_gpu = HeldMaps(torch.zeros(4, 2))
    on_gpu.device = CUDA
    assert draws_on_device(augmentation_plan, CUDA, on_gpu)
    assert draws_on_device(METHODS["crt"].sampling.draw, CUDA, None)
    assert not draws_on_device(augmentation_plan, CUDA, on_host)
    assert not draws_on_device(augmentation_plan, CUDA, object())  # streamed, or of a fold
    assert not draws_on_device(augmentation_plan, CPU, on_host)
    assert not draws_on_device(lambda *_: None, CUDA, None)


@PLACES
def test_a_device_replaces_the_same_vectors_in_place(device):
    inputs = made_inputs(9, in_place=True, generic=None)
    draw = METHODS["fsa"].sampled("halves").draw
    assert_same_plan(draw(inputs.on(device), 60, 130), draw(inputs, 60, 130))
