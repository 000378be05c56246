"""A method, a post-hoc head and a loss from outside the package: a function and a line each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, run, succeed

from finetune.config import FinetuneConfig
from finetune.heads.losses import balanced_softmax
from finetune.heads.posthoc import Trained
from finetune.methods.losses import LOSSES, LossKind
from finetune.methods.registry import METHODS, Method, Sampling
from finetune.sampling.plan import Plan, PlanInputs
from finetune.training.inputs import plan_inputs
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SHORT = ["--iterations", 12, "--eval-every", 6, "--device", "cpu"]
OWN = {"lr": 0.05, "schedule": "cosine", "weight_decay": 0.25}


def square_root_prior(inputs: PlanInputs) -> np.ndarray:
    root = np.sqrt(inputs.row_counts)
    return root / root.sum()


def square_root_draw(inputs: PlanInputs, start: int, stop: int):
    """Draw classes by the square root of their counts, between `plain` and `crt`."""
    uniform = inputs.draws.uniform("class", start, stop, inputs.batch_size)
    classes = np.searchsorted(np.cumsum(square_root_prior(inputs)), uniform).clip(max=9)
    within = inputs.draws.uniform("row of class", start, stop, inputs.batch_size)
    return Plan(inputs.rows_of_classes(classes, within))


def no_bias(trained: Trained):
    return trained.weight / np.float32(trained.tau), np.zeros_like(trained.bias)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    sampling = Sampling(square_root_draw, square_root_prior)
    monkeypatch.setitem(METHODS, "square-root", Method("by square roots", sampling, "gentle", "fc", OWN))
    monkeypatch.setitem(METHODS, "no-bias", Method("no bias", compute=no_bias, options=("tau",)))
    gentle = LossKind(lambda prior, class_counts, tau: balanced_softmax(prior, tau / 2), ("tau",))
    monkeypatch.setitem(LOSSES, "gentle", gentle)


def head_at(out: str) -> list[np.ndarray]:
    head = torch.load(Path(out, "head.pt"), weights_only=True)
    return [head["weight"].numpy(), head["bias"].numpy()]


def test_it_is_trained_with_its_own_draw_loss_and_defaults(feature_store, small_ckpt):
    store = FeatureStore(feature_store)
    succeed("finetune", "--store", feature_store, "--out", "toy", "--method", "square-root", *SHORT)
    config = json.loads(Path("toy/config.json").read_text())
    assert {name: config[name] for name in OWN} == OWN
    assert (config["loss"], config["batch_size"]) == ("gentle", 128)

    train, (weight, bias) = store.read("train"), store.classifier
    resolved = FinetuneConfig("", method="square-root", iterations=12).resolved(10)
    inputs = plan_inputs(resolved, store)
    shift = torch.from_numpy(np.log(square_root_prior(inputs)) / 2).float()
    layer = [torch.tensor(weight, requires_grad=True), torch.tensor(bias, requires_grad=True)]
    optimizer = torch.optim.SGD(layer, lr=OWN["lr"], momentum=0.9, weight_decay=OWN["weight_decay"])
    course = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for row in square_root_draw(inputs, 0, 12).row:
        logits = torch.from_numpy(train.pooled[row]) @ layer[0].T + layer[1] + shift
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(train.label[row]).long()).backward()
        optimizer.step()
        course.step()
    for found, expected in zip(head_at("toy"), layer, strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-3, atol=1e-5)


def test_a_computed_head_depends_on_the_options_that_it_names(feature_store):
    command = ["finetune", "--store", feature_store, "--method", "no-bias", "--device", "cpu"]
    result = succeed(*command, "--out", "half", "--tau", 2)
    weight, _ = FeatureStore(feature_store).classifier
    np.testing.assert_array_equal(head_at("half")[0], weight / 2)
    assert "changes nothing" not in result.stderr
    assert "--distance changes nothing" in succeed(*command, "--out", "b", "--distance", "cosine").stderr


def test_a_sweep_varies_it_and_analyze_compares_it(feature_store):
    varied = ["--grid", "method=square-root,plain,no-bias", "--grid", "loss=none,gentle", "--grid", "tau=1,2"]
    command = ["sweep", "--store", feature_store, "--select-on", "test", *SHORT, "--seeds", 1]
    succeed(*command, "--out", "sweep", *varied)
    found = pd.read_csv("sweep/ranking.csv")["configuration"].tolist()
    methods = [name.split(",")[0] for name in found]  # methods that depend on neither loss nor τ appear once
    assert {name: methods.count(name) for name in methods} == {"no-bias": 2, "plain": 3, "square-root": 2}
    for method in ("square-root", "plain"):
        succeed("finetune", "--store", feature_store, "--method", method, "--out", method, *SHORT)
    succeed("analyze", "square-root", "plain", "--out", "report")
    assert "square-root" in pd.read_csv("report/summary.csv")["configuration"].tolist()
    says = ["method=unknown: expected one of fsa, ", ", no-bias"]
    refuse(*command, "--grid", "method=unknown", says=says)


def test_help_and_refusals_name_the_method():
    assert "no-bias" in "".join(run("finetune", "--help").stdout.split())
    refuse(
        "finetune", "--store", "s", "--method", "magic", says=["'magic' is not one of 'fsa', ", "'no-bias'"]
    )


@pytest.mark.parametrize("unknown", [{"method": "magic"}, {"loss": "magic"}])
def test_a_name_that_nothing_has_is_refused_without_the_command_line_too(unknown):
    with pytest.raises(UserError, match=r"magic: unknown; expected one of .*(no-bias|gentle)"):
        FinetuneConfig("", **unknown).resolved(10)


def test_names_of_methods_and_losses_cost_no_heavy_import():
    """`finetune --help` needs them."""
    heavy = ("torch", "pandas", "zarr", "scipy", "sklearn")
    code = (
        "import sys, finetune.methods.losses, finetune.methods.registry\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
