"""DisAlign and OLTR: heads that are not one FC layer, compared with their papers' formulas and autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_oracles import CPU, LOSSES, batches, options, taught, taught_by_autograd
from torch.nn.functional import linear

from extract.heads.kinds import KINDS, layer_of
from finetune.config import FinetuneConfig
from finetune.heads.differentiated import DIFFERENTIATED, DifferentiatedHead
from finetune.sampling.philox import CounterRNG
from finetune.train import finetune
from finetune.training.inputs import head_options, plan_inputs
from store.reader import FeatureStore
from store.storage.location import locate


def random_parts(kind: str, k: int, c: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=shape) for name, shape in KINDS[kind].shapes(k, c).items()}


def aligned_one(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """Logits (K,) of one feature, class by class."""
    s = 1 / (1 + np.exp(-(p["confidence_weight"][0] @ x + p["confidence_bias"][0])))
    found = []
    for k, w in enumerate(p["weight"]):
        z = w @ x + p["bias"][k]
        found.append(s * (p["logit_scale"][k] * z + p["logit_shift"][k]) + z)
    return np.array(found)


def recalling_one(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """The same of OLTR, in its authors' order: reachability first, then the squashed cosine."""
    attention = np.exp(p["memory_weight"] @ x + p["memory_bias"])
    recalled = sum(a * c for a, c in zip(attention / attention.sum(), p["centroids"], strict=True))
    reach = 10 / min(np.linalg.norm(x - c) for c in p["centroids"])
    u = reach * (x + np.tanh(p["selector_weight"] @ x + p["selector_bias"]) * recalled)
    length = np.linalg.norm(u)
    return np.array(
        [16 * (length / (1 + length)) * (u / length) @ w / np.linalg.norm(w) for w in p["weight"]]
    )


def cosine_one(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    return np.array(
        [p["logit_scale"][0] * x @ w / (np.linalg.norm(x) * np.linalg.norm(w)) for w in p["weight"]]
    )


OF_ONE = {"aligned": aligned_one, "meta-embedding": recalling_one, "cosine": cosine_one}


@pytest.mark.parametrize("kind", OF_ONE)
def test_logits_are_those_of_the_papers_formulas(kind):
    rng = np.random.default_rng(1)
    parts = random_parts(kind, 5, 7, rng)
    x = rng.random((40, 7)) * rng.exponential(3.0, size=(40, 1))
    layer = KINDS[kind](**{name: torch.from_numpy(part) for name, part in parts.items()})
    expected = np.stack([OF_ONE[kind](one, parts) for one in x])
    np.testing.assert_allclose(layer.logits(torch.from_numpy(x)).numpy(), expected, rtol=1e-9)


def test_a_feature_on_a_centroid_has_finite_logits():
    """A class of one image has its feature as its mean: the distance is 0, and reachability infinite."""
    rng = np.random.default_rng(2)
    parts = {k: torch.from_numpy(v).float() for k, v in random_parts("meta-embedding", 4, 6, rng).items()}
    layer = layer_of(parts)
    x = parts["centroids"].clone().requires_grad_()
    logits = layer.logits(x)
    assert logits.isfinite().all()
    assert logits.abs().max() <= 16
    near = layer.logits(parts["centroids"] + 1e-3)
    torch.testing.assert_close(logits.detach(), near, rtol=0.01, atol=0.05)


STAYS = {"alignment": {"weight", "bias"}, "meta-embedding": {"centroids"}}  # all else is trained


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("trainable", DIFFERENTIATED)
def test_further_heads_equal_autograd_and_torch_sgd(trainable, name, schedule):
    rng, (kind, _) = np.random.default_rng(3), DIFFERENTIATED[trainable]
    trained = [part for part in kind._fields if part not in STAYS[trainable]]
    parts = {part: rng.normal(size=shape) for part, shape in kind.shapes(5, 7).items()}
    own = {"weight": parts["weight"], "bias": parts.get("bias", np.zeros(5))}
    more = {"weight_decay": 0.01, "schedule": schedule, "n_iterations": 20, "trainable": trainable}
    head = replace(options(rng, loss=LOSSES[name], parts=parts, **more), **own)
    made = batches(rng, 20, 12)
    p = {part: torch.tensor(value, requires_grad=part in trained) for part, value in parts.items()}

    def logits(x: torch.Tensor) -> torch.Tensor:
        if trainable == "alignment":
            s = (x @ p["confidence_weight"].T + p["confidence_bias"]).sigmoid()
            z = linear(x, p["weight"], p["bias"])
            return (1 + s * p["logit_scale"]) * z + s * p["logit_shift"]
        reach = 10 / (x[:, None] - p["centroids"]).norm(dim=2).min(1, keepdim=True).values
        recalled = linear(x, p["memory_weight"], p["memory_bias"]).softmax(1) @ p["centroids"]
        u = reach * (x + linear(x, p["selector_weight"], p["selector_bias"]).tanh() * recalled)
        length = u.norm(dim=1, keepdim=True)
        return 16 * (u / (1 + length)) @ (p["weight"] / p["weight"].norm(dim=1, keepdim=True)).T

    groups = [{"params": [p[part] for part in trained]}]
    expected = taught_by_autograd(name, logits, groups, made, 0.01, schedule)
    trained_head = DifferentiatedHead(head, CPU)
    torch.testing.assert_close(taught(trained_head, made)[:, 0], expected, rtol=1e-6, atol=1e-6)
    layer = trained_head.layers()[0]
    for part, value in layer._asdict().items():
        torch.testing.assert_close(value, p[part].detach(), rtol=1e-6, atol=1e-6)
        assert torch.equal(value, torch.from_numpy(parts[part])) == (part not in trained), part


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    out = str(tmp_path / "run")
    return FinetuneConfig(str(feature_store), out, iterations=40, eval_every=20, device="cpu", seed=3)


def test_what_each_begins_with(config):
    """DisAlign as its authors do; OLTR with class means, Phase I's layer as memory, and a random selector."""
    store = FeatureStore(locate(config.store))
    train, (weight, bias) = store.read("train"), store.classifier
    (k, c), made = weight.shape, {}
    for method in ("disalign", "oltr"):
        resolved = replace(config, method=method).resolved(k)
        made[method] = head_options(resolved, store, plan_inputs(resolved, store))
    aligned, recalling = made["disalign"], made["oltr"]
    assert np.array_equal(aligned.weight, weight)
    assert np.array_equal(aligned.bias, bias)
    assert set(aligned.parts["logit_scale"]) == {1.0}
    assert set(aligned.parts["logit_shift"]) == set(aligned.parts["confidence_bias"]) == {0.0}
    assert set(aligned.parts["confidence_weight"][0]) == {np.float32(0.1)}
    numbers = CounterRNG(3).uniform("fresh weight", 0, 1, k * c + k + c * c + c)[0]
    numbers = ((2 * numbers - 1) / np.sqrt(c)).astype(np.float32)
    assert np.array_equal(recalling.weight.ravel(), numbers[: k * c])
    selector = [recalling.parts["selector_weight"].ravel(), recalling.parts["selector_bias"]]
    assert np.array_equal(np.concatenate(selector), numbers[k * c + k :])
    assert np.array_equal(recalling.parts["memory_weight"], weight)
    means = np.stack([train.pooled[train.label == i].astype(np.float64).mean(0) for i in range(k)])
    np.testing.assert_allclose(recalling.parts["centroids"], means, rtol=1e-6)


@pytest.mark.parametrize("method", ["disalign", "oltr"])
def test_every_seed_is_a_head_of_its_own_and_a_seed_gives_the_same_again(config, method, quiet, tmp_path):
    config = replace(config, method=method)
    first, again = (finetune(replace(config, out=str(tmp_path / name)), quiet) for name in "ab")
    other = finetune(replace(config, out=str(tmp_path / "c"), seed=4), quiet)
    assert (first.path / "head.pt").read_bytes() == (again.path / "head.pt").read_bytes()
    assert (first.path / "head.pt").read_bytes() != (other.path / "head.pt").read_bytes()
