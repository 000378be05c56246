"""Algorithm 1 of the paper, line by line and sample by sample, compared with the windows and steps of a run.

The two share only the random numbers at their addresses: sets, classes, donors, counts, means,
gradients and steps are computed again here, in double precision.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.loading.features import load_features
from finetune.loading.residency import Residency, hold_maps
from finetune.loading.window import WindowMaker
from finetune.methods.registry import METHODS
from finetune.sampling.philox import CounterRNG
from finetune.training.head_pool import HeadPool
from finetune.training.inputs import head_options, plan_inputs
from store.arrays.split import SplitArrays

CPU = torch.device("cpu")
LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # values of synthetic CAMs, which often equal a threshold


@dataclass(frozen=True)
class MadeStore:
    """The parts of a store that Phase II uses."""

    label: np.ndarray
    maps: np.ndarray
    cam: np.ndarray
    classifier: tuple[np.ndarray, np.ndarray]
    path = "made"

    @property
    def class_names(self) -> list[str]:
        return [str(c) for c in range(len(self.classifier[0]))]

    @property
    def map_shape(self) -> tuple[int, ...]:
        return self.maps.shape

    def read(self, split: str) -> SplitArrays:
        pooled = self.maps.astype(np.float32).mean((1, 2))
        n = len(self.label)
        return SplitArrays(self.label, np.arange(n), np.zeros(n, np.int16), pooled, pooled)

    def read_cam(self) -> np.ndarray:
        return self.cam

    def read_feature_map(self, layer: None) -> np.ndarray:
        return self.maps


@st.composite
def stores(draw: st.DrawFn) -> MadeStore:
    """Any number of classes of any size, and maps of any shape that can be fused."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=6))
    height, width = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda hw: hw != (1, 1)))
    channels = draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, k = sum(sizes), len(sizes)
    maps = rng.normal(size=(n, height, width, channels)).astype(draw(st.sampled_from(["f2", "f4"])))
    cam = rng.choice(LEVELS, size=(n, height, width)).astype(np.float16)
    weight, bias = rng.normal(size=(k, channels)).astype("f4"), rng.normal(size=k).astype("f4")
    return MadeStore(np.repeat(np.arange(k), sizes).astype(np.int32), maps, cam, (weight, bias))


def n_head_classes(store: MadeStore, twentieths: int) -> int:
    """Number of largest classes that hold so many twentieths of the samples (sec. 5.4)."""
    counts = sorted((list(store.label).count(c) for c in set(store.label)), reverse=True)
    h = 1
    while Fraction(sum(counts[:h]), len(store.label)) < Fraction(twentieths, 20):
        h += 1
    return h


@st.composite
def problems(draw: st.DrawFn) -> tuple[MadeStore, FinetuneConfig, int]:
    """A store, options for it, and the first iteration."""
    store, twentieths = draw(stores()), draw(st.integers(1, 19))
    k, h = len(store.class_names), n_head_classes(store, twentieths)
    assume(h < k)  # otherwise there is no tail
    donors = draw(st.sampled_from(["any", "head"]))
    thresholds = st.sampled_from(LEVELS[1:-1]) | st.floats(0.01, 0.99)
    gamma_min, gamma_max = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
    config = FinetuneConfig(
        method="fsa",
        store="made",
        seed=draw(st.integers(0, 2**32 - 1)),
        lr=0.1,
        tail_samples=draw(st.integers(1, 4)),
        augmented_per_sample=draw(st.integers(1, 6)),
        confusing_classes=draw(st.integers(1, k - 1 if donors == "any" else h)),
        donors=donors,
        gamma_min=gamma_min,
        gamma_max=gamma_max,
        head_ratio=twentieths / 20,
        tau_s=draw(thresholds),
        tau_g=draw(thresholds),
        tail_draw=draw(st.sampled_from(["samples", "classes"])),
    )
    return store, config, draw(st.integers(0, 3) | st.integers(0, 2**40))


def pick(among: list[int], number: float) -> int:
    """One of the items, by a number in [0, 1)."""
    return among[int(number * len(among))]


class Reference:
    """Algorithm 1, iteration by iteration."""

    def __init__(self, store: MadeStore, config: FinetuneConfig):
        self.config, self.draws, self.iteration = config, CounterRNG(config.seed), 0
        n, k = len(store.label), len(store.class_names)
        self.label = store.label.tolist()
        self.vectors = store.maps.astype(np.float64).reshape(n, -1, store.maps.shape[-1])  # (N, L, C)
        self.cam = store.cam.astype(np.float64).reshape(n, -1).tolist()
        self.weight, self.bias = (part.astype(np.float64) for part in store.classifier)
        self.rows_of = [[row for row in range(n) if self.label[row] == c] for c in range(k)]
        by_size = sorted(range(k), key=lambda c: -len(self.rows_of[c]))
        h = n_head_classes(store, round(config.head_ratio * 20))
        self.head, self.tail = by_size[:h], by_size[h:]
        self.n_empty = [0, 0]

    def numbers(self, kind: str, *shape: int) -> np.ndarray:
        return self.draws.uniform(kind, self.iteration, self.iteration + 1, *shape)[0]

    def pooled(self, row: int) -> np.ndarray:
        return self.vectors[row].mean(axis=0)

    def rows_of_any(self, classes: list[int]) -> list[int]:
        return [row for row, c in enumerate(self.label) if c in classes]

    def tail_row(self, i: int) -> int:
        """Line 5."""
        number = self.numbers("tail", self.config.tail_samples)[i]
        if self.config.tail_draw == "samples":
            return pick(self.rows_of_any(self.tail), number)
        c = pick(self.tail, number)
        return pick(self.rows_of[c], self.numbers("row of tail class", self.config.tail_samples)[i])

    def confusing_classes(self, c: int) -> list[int]:
        """Line 9: the other classes that samples of class c score highest for, on average (sec. 4.2)."""
        scores = []
        for row in self.rows_of[c]:
            odds = np.exp(self.weight @ self.pooled(row) + self.bias)
            scores.append(odds / odds.sum())
        mean = np.mean(scores, axis=0)
        lenders = self.head if self.config.donors == "head" else self.head + self.tail
        others = sorted((u for u in lenders if u != c), key=lambda u: -mean[u])
        return others[: self.config.confusing_classes]

    def lenders(self, i: int, c: int) -> list[int]:
        """Line 10: N_a of the confusing classes in a drawn order, repeated if there are fewer."""
        confusing = self.confusing_classes(c)
        keys = self.numbers("order of confusing classes", self.config.tail_samples, len(confusing))[i]
        order = sorted(range(len(confusing)), key=lambda j: keys[j])
        return [confusing[order[a % len(order)]] for a in range(self.config.augmented_per_sample)]

    def positions(self, row: int, kind: str) -> list[int]:
        """Lines 7 and 12; all positions if there is none."""
        if kind == "specific":
            found = [i for i, value in enumerate(self.cam[row]) if value > self.config.tau_s]
        else:
            found = [i for i, value in enumerate(self.cam[row]) if value < self.config.tau_g]
        self.n_empty[kind == "generic"] += not found
        return found or list(range(len(self.cam[row])))

    def fused(self, row: int, donor: int, place: int, n_augmented: int) -> np.ndarray:
        """Lines 14 to 17, and the mean over positions."""
        n_positions, low, high = len(self.cam[row]), self.config.gamma_min, self.config.gamma_max
        gamma = low + (high - low) * self.numbers("gamma", n_augmented)[place]
        n_specific = min(max(round(gamma * n_positions), 1), n_positions - 1)
        specific, generic = self.positions(row, "specific"), self.positions(donor, "generic")
        drawn = []
        for v, number in enumerate(self.numbers("vector", n_augmented, n_positions)[place]):
            if v < n_specific:
                drawn.append(self.vectors[row][pick(specific, number)])
            else:
                drawn.append(self.vectors[donor][pick(generic, number)])
        return np.mean(drawn, axis=0)

    def batch(self, iteration: int) -> tuple[np.ndarray, list[int]]:
        """Pooled features and labels: tail samples, head samples, then augmented ones."""
        self.iteration = iteration
        n_augmented = self.config.tail_samples * self.config.augmented_per_sample
        tail, augmented = [], []
        for i in range(self.config.tail_samples):
            row = self.tail_row(i)
            c = self.label[row]
            tail.append((self.pooled(row), c))
            for u in self.lenders(i, c):
                place = len(augmented)
                donor = pick(self.rows_of[u], self.numbers("donor row", n_augmented)[place])  # line 11
                augmented.append((self.fused(row, donor, place, n_augmented), c))
        head = []
        for number in self.numbers("head row", self.config.tail_samples + n_augmented):  # line 20
            row = pick(self.rows_of_any(self.head), number)
            head.append((self.pooled(row), self.label[row]))
        pooled, label = zip(*(tail + head + augmented), strict=True)
        return np.array(pooled), list(label)


@given(problem=problems(), cut=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_run_is_algorithm_1_and_sgd(problem, cut):
    """Batches and steps, in two windows of 5 iterations, for any store and options."""
    store, config, start = problem
    reference = Reference(store, config)
    resolved = config.resolved(len(store.class_names))
    inputs = plan_inputs(resolved, store)
    maker = WindowMaker(
        METHODS["fsa"].sampling.draw,
        inputs,
        load_features(store, CPU),
        hold_maps(store, Residency("host", 64, ""), CPU),
    )
    windows = [maker.make(bounds) for bounds in ((start, start + cut), (start + cut, start + 5))]
    channels = store.maps.shape[-1]
    tolerance = 2**-10 * np.abs(store.maps).max() if store.maps.dtype == np.float16 else 1e-5

    parameters = [torch.from_numpy(part.astype(np.float64)).requires_grad_() for part in store.classifier]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    losses = []
    made = [pair for window in windows for pair in zip(window.pooled, window.label, strict=True)]
    for iteration, (pooled, label) in enumerate(made, start):
        expected, expected_label = reference.batch(iteration)
        assert label.tolist() == expected_label
        np.testing.assert_allclose(pooled[:, :channels], expected, rtol=1e-4, atol=tolerance)
        loss = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(torch.from_numpy(expected), *parameters), torch.tensor(expected_label)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(window.n_empty for window in windows).tolist() == reference.n_empty

    with single_threaded() as threads:
        stacks = HeadPool([head_options(resolved, store, inputs)], CPU, threads)
        taken = torch.cat([stacks.train_on(window) for window in windows])
    np.testing.assert_allclose(taken[:, 0], losses, rtol=1e-3, atol=10 * tolerance)
    for found, wanted in zip(stacks.layers()[0], parameters, strict=True):
        np.testing.assert_allclose(found, wanted.detach(), rtol=1e-3, atol=10 * tolerance)
