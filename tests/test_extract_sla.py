"""Label augmentation by rotations: its loss, what of it checkpoints and stores hold, both accuracies."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import succeed
from made_training import STEPS, same_weights, saved, timeless, train_interrupted

from extract.checkpoints.restore import restore
from extract.images.transforms import normalise
from extract.train import train
from extract.training.batch import Batch
from extract.training.losses.config import LossConfig
from extract.training.losses.objective import make_objective
from extract.training.losses.sla import add_turned


@pytest.fixture
def config(tiny):
    return replace(tiny, epochs=2, objective=LossConfig("sla"))


def test_its_loss_is_the_joint_cross_entropy_of_class_and_turn():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(5, 3, 4, 4, generator=generator), torch.tensor([0, 2, 1, 2, 0])
    with torch.random.fork_rng():
        layer = torch.nn.Linear(48, 3)
        add_turned(layer)
    objective = make_objective(LossConfig("sla").resolved(1), np.ones(3), np.ones(3), 1, layer)
    seen = objective.images(images)
    pooled = seen.flatten(1)
    found = objective.mean(layer(pooled), pooled, Batch(images, labels), 0.0)
    weight, bias = np.zeros((12, 48)), np.zeros(12)
    weight[0::4], bias[0::4] = layer.weight.detach(), layer.bias.detach()
    for m in (1, 2, 3):
        weight[m::4] = layer.turned.weight.detach()[3 * (m - 1) : 3 * m]
        bias[m::4] = layer.turned.bias.detach()[3 * (m - 1) : 3 * m]
    terms = []
    for image, label in zip(images.numpy().astype(np.float64), labels.tolist(), strict=True):
        for m in range(4):
            z = weight @ np.rot90(image, m, axes=(1, 2)).ravel() + bias
            terms.append(np.log(np.exp(z).sum()) - z[4 * label + m])
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-5)
    found.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_a_checkpoint_holds_an_ordinary_network_and_evaluate_tells_two_accuracies(config, quiet):
    checkpoint = train(config, quiet)
    path = Path(config.out) / "checkpoint.pt"
    assert checkpoint.state["classifier.weight"].shape[0] == 3
    assert not any("turned" in name for name in checkpoint.state)
    assert checkpoint.turned["classifier.turned.weight"].shape[0] == 9
    restored = restore(path, None, quiet, only=("test",))
    test, network = restored.dataset.test, restored.network
    images = normalise(test.images, restored.transform)
    with torch.inference_mode():
        logits = network(images)
        total = logits.clone()
        for m in (1, 2, 3):
            pooled = network.pooled(torch.rot90(images, m, (2, 3)))
            weight, bias = (checkpoint.turned[f"classifier.turned.{name}"] for name in ("weight", "bias"))
            total += (pooled @ weight.T + bias)[:, 3 * (m - 1) : 3 * m]
    told = json.loads(succeed("evaluate", "--ckpt", path, "--json", "--device", "cpu").stdout)
    label = torch.from_numpy(test.label)
    assert told["overall"] == pytest.approx(100 * (logits.argmax(1) == label).double().mean().item())
    aggregated = 100 * (total.argmax(1) == label).double().mean().item()
    assert told["aggregated"]["overall"] == pytest.approx(aggregated)
    assert told["aggregated"]["balanced_accuracy"] == pytest.approx(aggregated)  # four images of each class
    assert checkpoint.history[-1]["test_accuracy"] == pytest.approx(told["overall"])
    printed = succeed("evaluate", "--ckpt", path, "--device", "cpu").stdout
    assert f"aggregated over four turns of each image: overall (images) {aggregated:.2f}" in printed
    store = path.with_name("s.zarr")
    succeed("extract", "--ckpt", path, "--store", store, "--device", "cpu")
    out = path.parent.with_name("tuned")
    quick = ("--method", "plain", "--iterations", 2, "--device", "cpu")
    succeed("finetune", "--store", store, "--out", out, *quick)
    tuned = succeed("evaluate", "--ckpt", out / "checkpoint.pt", "--json", "--device", "cpu").stdout
    assert "aggregated" not in json.loads(tuned)


@pytest.mark.parametrize("n", [3, STEPS + 1])
def test_label_augmentation_is_resumed_to_the_bit(config, quiet, n):
    whole = train(replace(config, out=config.out + "-whole"), quiet)
    train_interrupted(config, n)
    resumed = train(replace(config, resume=True), quiet)
    assert same_weights(whole, resumed)
    assert timeless(whole.history) == timeless(resumed.history)
    turned = saved(config).turned
    assert all(torch.equal(tensor, whole.turned[name]) for name, tensor in turned.items())
