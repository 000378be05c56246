"""Phase I's losses, each held against its formula, written out in float64, image by image."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from extract.training.batch import Batch
from extract.training.losses.config import LossConfig
from extract.training.losses.focal import focal_terms
from extract.training.losses.lifted import lifted_structure
from extract.training.losses.objective import Objective, make_objective
from extract.training.losses.range_loss import range_loss
from extract.training.losses.weighting import class_weights

EPOCHS = 10
COUNTS = {
    "two classes": [5000, 1],
    "ten classes": [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    "many classes": [int(900 * 0.955**c) + 1 for c in range(150)],
    "balanced": [7, 7, 7],
    "an empty class": [40, 0, 3, 1],
}
LOSSES = [
    LossConfig("ce"),
    LossConfig("ce", label_smoothing=0.2),
    LossConfig("ce", drw_epoch=4),
    LossConfig("ce", drw_epoch=5, weighted_mean="batch", beta=0.99),
    LossConfig("focal"),
    LossConfig("focal", focal_gamma=0.5),
    LossConfig("focal", focal_gamma=2.0, drw_epoch=0),
    LossConfig("class-balanced"),
    LossConfig("class-balanced", beta=0.0),
    LossConfig("class-balanced", beta=0.9, weighted_mean="weights"),
    LossConfig("class-balanced", beta=0.999, focal_gamma=2.0),
    LossConfig("balanced-softmax"),
    LossConfig("balanced-softmax", tau=0.0),
    LossConfig("balanced-softmax", tau=1.7),
    LossConfig("ldam"),
    LossConfig("ldam", max_margin=0.2, logit_scale=8.0, drw_epoch=0, weighted_mean="batch"),
    LossConfig("label-aware-smoothing"),
    LossConfig("label-aware-smoothing", smooth_head=0.4, smooth_tail=0.1),
]


def named(config: LossConfig) -> str:
    changed = {k: v for k, v in vars(config).items() if v != getattr(LossConfig, k)}
    return " ".join(map(str, changed.values())) or "ce"


class Case:
    """A batch of images of chance, its FC layer, and float64 copies of them."""

    def __init__(self, counts: list[int], n_images: int = 24, n_channels: int = 6):
        generator = torch.Generator().manual_seed(len(counts))
        self.counts = np.array(counts, np.float64)
        has_images = torch.tensor(counts, dtype=torch.float64).clamp_max(1)
        draw = {"replacement": True, "generator": generator}
        self.labels = torch.multinomial(has_images, n_images, **draw)
        self.others = torch.multinomial(has_images, n_images, **draw)
        self.share = torch.rand(n_images, generator=generator)
        self.pooled = torch.randn(n_images, n_channels, generator=generator).abs() * 3
        self.classifier = torch.nn.utils.skip_init(torch.nn.Linear, n_channels, len(counts))
        with torch.no_grad():
            self.classifier.weight.copy_(torch.randn(len(counts), n_channels, generator=generator))
            self.classifier.bias.copy_(torch.randn(len(counts), generator=generator))

    def batch(self, mixed: bool) -> Batch:
        images = torch.empty(len(self.labels), 0)
        return Batch(images, self.labels, *((self.others, self.share) if mixed else ()))

    def mean(self, config: LossConfig, mixed: bool = False, progress: float = 0.5, delivered=None):
        delivered = self.counts if delivered is None else delivered
        objective = make_objective(config.resolved(EPOCHS), self.counts, delivered, EPOCHS, self.classifier)
        return objective.mean(self.classifier(self.pooled), self.pooled, self.batch(mixed), progress)


def weights_of(counts: np.ndarray, beta: float) -> np.ndarray:
    weights = [(1 - beta) / (1 - beta**n) if n else 0 for n in counts]
    return np.array(weights) * np.count_nonzero(counts) / sum(weights)


def term(config: LossConfig, x: np.ndarray, layer: tuple, y: int, counts: np.ndarray, delivered) -> float:
    """The loss of one image, from the formulas of the papers."""
    weight, bias = layer
    z = weight @ x + bias
    if config.loss == "balanced-softmax":
        n = np.where(delivered > 0, delivered, 1)
        z = z + config.tau * np.log(n / n.sum())
    if config.loss == "ldam":
        z = np.array([w @ x / np.sqrt((w @ w) * (x @ x)) for w in weight])
        z[y] -= config.max_margin * (min(counts[counts > 0]) / counts[y]) ** 0.25
        z = config.logit_scale * z
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
    smoothed = config.label_smoothing
    if config.loss == "label-aware-smoothing":
        least, most = min(counts[counts > 0]), max(counts)
        angle = math.pi / 2 * ((counts[y] - least) / (most - least) if most > least else 1)
        smoothed = config.smooth_tail + (config.smooth_head - config.smooth_tail) * math.sin(angle)
    factor = (1 - math.exp(log_p[y])) ** (config.focal_gamma or 0)
    return factor * (-(1 - smoothed) * log_p[y] - smoothed * np.mean(log_p))


def expected(config: LossConfig, case: Case, layer: tuple, mixed: bool, weighted: bool, delivered=None):
    config, delivered = config.resolved(EPOCHS), case.counts if delivered is None else delivered
    weight = weights_of(delivered, config.beta) if weighted else np.ones(len(case.counts))
    total, divisor = 0.0, 0.0
    for x, y, other, share in zip(
        case.pooled.double().numpy(), case.labels, case.others, case.share.tolist(), strict=True
    ):
        for label, part in [(y, share), (other, 1 - share)] if mixed else [(y, 1.0)]:
            total += part * weight[label] * term(config, x, layer, int(label), case.counts, delivered)
            divisor += part * (weight[label] if weighted and config.weighted_mean == "weights" else 1)
    return total / divisor


def float64(classifier: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return tuple(value.detach().double().numpy() for value in (classifier.weight, classifier.bias))


def has_weights(config: LossConfig, progress: float) -> bool:
    config = config.resolved(EPOCHS)
    drawn_late = config.drw_epoch is not None and EPOCHS * progress >= config.drw_epoch
    return config.loss == "class-balanced" or drawn_late


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("config", LOSSES, ids=named)
def test_a_loss_is_its_formula(config, counts):
    case = Case(counts)
    for mixed, progress in itertools.product((False, True), (0.49, 0.5, 0.8)):
        weighted = has_weights(config, progress)
        formula = expected(config, case, float64(case.classifier), mixed, weighted)
        assert case.mean(config, mixed, progress).item() == pytest.approx(formula, rel=2e-5), (
            mixed,
            progress,
        )


@pytest.mark.parametrize("counts", [COUNTS["two classes"], COUNTS["ten classes"]], ids=len)
@pytest.mark.parametrize("config", LOSSES, ids=named)
def test_its_gradient_is_that_of_the_formula(config, counts):
    """Along one direction of the FC layer, by differences in float64."""
    case, rng, step = Case(counts), np.random.default_rng(0), 1e-6
    mixed, weighted = True, has_weights(config, 0.9)
    case.mean(config, mixed, 0.9).backward()
    layer = float64(case.classifier)
    towards = [rng.normal(size=value.shape) for value in layer]
    ahead, behind = (
        expected(
            config,
            case,
            tuple(v + sign * step * t for v, t in zip(layer, towards, strict=True)),
            mixed,
            weighted,
        )
        for sign in (1, -1)
    )
    gradients = (case.classifier.weight.grad, case.classifier.bias.grad)
    slope = sum((g.double().numpy() * t).sum() for g, t in zip(gradients, towards, strict=True))
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["balanced-softmax", "class-balanced"])
def test_the_prior_is_that_of_the_sampler(name):
    """Batches that are balanced already are not corrected again: what is left is cross-entropy."""
    case = Case(COUNTS["ten classes"])
    balanced = np.full(10, case.counts.sum() / 10)
    ce = case.mean(LossConfig("ce")).item()
    assert case.mean(LossConfig(name), delivered=balanced).item() == pytest.approx(ce, rel=1e-5)
    root = case.counts.sum() * np.sqrt(case.counts) / np.sqrt(case.counts).sum()
    config, weighted = LossConfig(name), name == "class-balanced"
    formula = expected(config, case, float64(case.classifier), False, weighted, delivered=root)
    assert case.mean(config, delivered=root).item() == pytest.approx(formula, rel=1e-5)


@pytest.mark.parametrize("config", [LossConfig("ldam", drw_epoch=10), LossConfig("label-aware-smoothing")])
def test_margins_and_smoothing_go_by_the_images_whatever_the_sampler(config):
    case = Case(COUNTS["ten classes"])
    assert torch.equal(case.mean(config), case.mean(config, delivered=np.full(10, 1240.6)))


def test_cross_entropy_is_torchs_to_the_bit():
    case = Case(COUNTS["ten classes"])
    logits = case.classifier(case.pooled)
    for objective in (
        Objective(),
        make_objective(LossConfig(), case.counts, case.counts, EPOCHS, case.classifier),
    ):
        found = objective.mean(logits, case.pooled, case.batch(mixed=False), 0.0)
        assert torch.equal(found, cross_entropy(logits, case.labels))


def test_class_weights_of_few_images_keep_their_digits():
    """1 − β^n cancels: with β this near to 1, weights are those of 1 / n."""
    counts = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    found = class_weights(counts, 1 - 1e-12)
    torch.testing.assert_close(found, torch.tensor([12.0, 6.0, 3.0]) / 7, rtol=1e-4, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_focal_loss_has_a_slope_where_an_image_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal_terms(logits, torch.tensor([0, 0]), gamma).sum().backward()
    assert logits.grad[0].tolist() == [0, 0]
    assert logits.grad[1].tolist() == pytest.approx([-1, 1])


def lifted_by_hand(x: np.ndarray, y: np.ndarray, margin: float) -> float:
    def distance(i: int, j: int) -> float:
        return math.sqrt(((x[i] - x[j]) ** 2).sum())

    pairs = [(i, j) for i, j in itertools.combinations(range(len(x)), 2) if y[i] == y[j]]
    total = 0.0
    for i, j in pairs:
        negatives = [k for k in range(len(x)) if y[k] != y[i]]
        if negatives:
            near = sum(
                math.exp(margin - distance(i, k)) + math.exp(margin - distance(j, k)) for k in negatives
            )
            total += max(0, math.log(near) + distance(i, j)) ** 2
    return total / (2 * len(pairs)) if pairs else 0.0


def range_by_hand(x: np.ndarray, y: np.ndarray, margin: float) -> float:
    total, centres = 0.0, []
    for label in set(y.tolist()):
        own = x[y == label]
        centres.append(own.mean(axis=0))
        lengths = sorted((np.linalg.norm(a - b) for a, b in itertools.combinations(own, 2)), reverse=True)
        if lengths:
            total += len(lengths[:2]) / sum(1 / length for length in lengths[:2])
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(centres, 2)]
    return total + (max(0, margin - min(apart)) if apart else 0)


BATCHES = {
    "of many classes": [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 0],
    "of two classes": [1, 0, 0, 1, 0],
    "of one class": [3, 3, 3],
    "of one image a class": [5, 2, 9],
    "of one image": [4],
    "of more images than torch compares one by one": [k % 7 for k in range(60)],
}
METRIC = {"lifted": (lifted_structure, lifted_by_hand), "range": (range_loss, range_by_hand)}


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", METRIC)
def test_a_metric_loss_is_its_formula(name, labels):
    loss, by_hand = METRIC[name]
    rng, y = np.random.default_rng(0), np.array(labels)
    x = rng.normal(size=(len(y), 5)) * 2 + 300  # far from the origin, where products lose digits
    for margin in (0.5, 5.0):
        pooled = torch.tensor(x, dtype=torch.float32, requires_grad=True)
        found = loss(pooled, torch.tensor(y), margin)
        assert found.item() == pytest.approx(by_hand(x, y, margin), rel=1e-4, abs=1e-6)
        found.backward()
        towards, step = rng.normal(size=x.shape), 1e-6
        ahead, behind = (by_hand(x + sign * step * towards, y, margin) for sign in (1, -1))
        slope = (pooled.grad.double().numpy() * towards).sum()
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("name", METRIC)
def test_copies_of_an_image_in_a_batch_have_finite_gradients(name):
    loss, _ = METRIC[name]
    for n_images in (2, 3, 40):
        pooled = torch.ones(n_images, 4, requires_grad=True)
        loss(pooled, torch.arange(n_images) // 3, 1.0).backward()
        assert pooled.grad.isfinite().all()


@pytest.mark.parametrize("name", METRIC)
def test_a_metric_loss_stands_beside_cross_entropy(name):
    case = Case(COUNTS["ten classes"])
    config = LossConfig(name, metric_weight=0.3, metric_margin=2.0)
    beside = METRIC[name][1](case.pooled.double().numpy(), case.labels.numpy(), 2.0)
    ce = case.mean(LossConfig("ce")).item()
    assert case.mean(config).item() == pytest.approx(ce + 0.3 * beside, rel=1e-5)
    assert torch.equal(case.mean(replace(config, metric_weight=0.0)), case.mean(LossConfig("ce")))


@pytest.mark.parametrize("loss", [lifted_structure, range_loss, lambda x, y, m: focal_terms(x, y, m).sum()])
def test_no_loss_looks_at_values_to_decide_what_to_do(loss):
    """Which a GPU would have to be waited for: tensors without values are enough."""
    pooled = torch.empty(8, 4, device="meta", requires_grad=True)
    loss(pooled, torch.empty(8, dtype=torch.int64, device="meta"), 1.0).backward()
    assert pooled.grad.shape == (8, 4)
