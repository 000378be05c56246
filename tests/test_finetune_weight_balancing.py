"""Weight balancing as in its authors' code, and version 0.1's method of that name."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed
from torch.nn.functional import binary_cross_entropy, linear, one_hot

from analysis.tables import name_configurations
from finetune.config import FinetuneConfig
from finetune.methods.options import effective_options, named_options
from finetune.methods.registry import METHODS
from finetune.sweep.folder import head_id
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from finetune.training.inputs import head_options, plan_inputs
from finetune.training.resume import unfinished_path
from store.errors import Interrupted, UserError
from store.reader import FeatureStore
from store.storage.location import locate

OF_OLD = {"loss": "class-balanced", "weight_decay": 5e-3, "max_norm": 1.0, "max_norm_every": "step"}
BATCH, ITERATIONS = 31, 40


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    where = (str(feature_store), str(tmp_path / "run"))
    return FinetuneConfig(*where, "weight-balancing", iterations=ITERATIONS, batch_size=BATCH, device="cpu")


def by_autograd(config: FinetuneConfig) -> tuple[np.ndarray, np.ndarray, int]:
    """The authors' second stage, but with our rows: weight, bias, and the number of cuts."""
    store = FeatureStore(locate(config.store))
    config, train = config.resolved(10), store.read("train")
    pooled, label = torch.tensor(train.pooled).double(), torch.tensor(train.label).long()
    rows = METHODS["weight-balancing"].sampling.draw(plan_inputs(config, store), 0, ITERATIONS).row
    counts = label.bincount().double()
    of_class = 1 / (1 - 0.9999**counts)
    of_class *= 10 / of_class.sum()
    weight, bias = (torch.tensor(part).double().requires_grad_() for part in store.classifier)
    length = [float((w.detach() ** 2).sum() ** 0.5) for w in weight]
    bound = min(length) + 0.1 * (max(length) - min(length))
    optimizer = torch.optim.SGD([weight, bias], config.lr, 0.9, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    n_batches, n_cut = int(np.ceil(len(label) / BATCH)), 0
    for i, row in enumerate(torch.from_numpy(rows), 1):
        own = one_hot(label[row], 10).double()
        of_row = of_class[label[row]][:, None].expand_as(own)
        optimizer.zero_grad()
        binary_cross_entropy(linear(pooled[row], weight, bias).softmax(1), own, of_row).backward()
        optimizer.step()
        scheduler.step()
        if i == ITERATIONS or (config.max_norm_every == "epoch" and i % n_batches == 0):
            with torch.no_grad():
                for w in weight:
                    if w.norm() > bound:
                        w *= bound / w.norm()
                        n_cut += 1
    return weight.detach().numpy(), bias.detach().numpy(), n_cut


def test_a_run_equals_the_published_loss_bound_and_schedule(config, quiet):
    """Two whole passes over 488 images and a part of one; some of them end with a cut."""
    weight, bias, n_cut = by_autograd(config)
    assert n_cut > 2
    run = finetune(config, quiet)
    head = torch.load(run.path / "head.pt", weights_only=True)
    moved = np.abs(weight - FeatureStore(locate(config.store)).classifier[0]).max()
    np.testing.assert_allclose(head["weight"], weight, rtol=1e-5, atol=2e-3 * moved)
    np.testing.assert_allclose(head["bias"], bias, rtol=1e-5, atol=2e-3 * moved)
    assert np.linalg.norm(head["weight"], axis=1).max() <= 1.00001 * bound_of(config)


def bound_of(config: FinetuneConfig) -> float:
    length = np.linalg.norm(FeatureStore(locate(config.store)).classifier[0], axis=1)
    return 0.9 * length.min() + 0.1 * length.max()


def test_the_bound_is_phase_1s_whatever_the_head_starts_from(config):
    store = FeatureStore(locate(config.store))
    for init in ("phase1", "fresh"):
        resolved = replace(config, init=init).resolved(10)
        made = head_options(resolved, store, plan_inputs(resolved, store))
        assert made.max_norm == pytest.approx(bound_of(config), rel=1e-6)
        assert made.max_norm_every == -(-488 // BATCH)
        cut = [i for i in range(ITERATIONS) if made.is_cut_after(i)]
        assert cut == [15, 31, ITERATIONS - 1]
        every = replace(resolved, max_norm_every="step")
        assert head_options(every, store, plan_inputs(every, store)).max_norm_every == 1


def test_a_run_of_old_is_not_taken_for_one_of_today():
    today = asdict(FinetuneConfig("s", method="weight-balancing").resolved(10))
    old = {k: v for k, v in (today | OF_OLD).items() if k != "max_norm_every"}
    assert name_configurations([named_options(run) for run in (old, today)]) == [
        "weight-balancing, loss=class-balanced, weight_decay=0.005, max_norm=1.0, max_norm_every=step",
        "weight-balancing",
    ]
    reached = FinetuneConfig("s", method="weight-balancing", **OF_OLD).resolved(10)
    assert effective_options(asdict(reached)) == effective_options(old)
    assert head_id(reached) != head_id(FinetuneConfig("s", method="weight-balancing").resolved(10))


def test_a_run_that_version_0_1_began_goes_on_as_it_was(config, quiet, monkeypatch, tmp_path):
    whole = finetune(replace(config, **OF_OLD, out=str(tmp_path / "whole")), quiet)

    train_on = HeadPool.train_on

    def train_until(self, window):
        if window.start >= 20:
            raise KeyboardInterrupt
        return train_on(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(HeadPool, "train_on", train_until)
        patch.setattr("finetune.training.resume.KEEP_EVERY", -1)  # every window, however fast
        with pytest.raises(Interrupted):
            finetune(replace(config, **OF_OLD, eval_every=10), quiet)
    path = unfinished_path(config.out)
    content = torch.load(path, weights_only=True)
    options = json.loads(content["options"])
    del options["max_norm_every"]
    torch.save(content | {"options": json.dumps(options)}, path)
    for name in ("weight_decay", "max_norm_every"):  # today's default, if given, is not what was started
        with pytest.raises(UserError, match=f"an older version started this run with {name} "):
            finetune(replace(config, resume=True, eval_every=10), quiet, [name])
    resumed = finetune(replace(config, resume=True, eval_every=10), quiet)  # the command of then
    assert (resumed.path / "head.pt").read_bytes() == (whole.path / "head.pt").read_bytes()
    assert {name: resumed.config[name] for name in OF_OLD} == OF_OLD


@pytest.mark.usefixtures("in_tmp_path")
def test_a_sweep_of_version_0_1_keeps_its_other_heads(feature_store):
    """Its weight balancing heads are trained again, once; heads of other methods are not."""
    command = ["sweep", "--store", feature_store, "--out", "sweep", "--select-on", "test", "--seeds", 1]
    command += ["--grid", "method=plain,weight-balancing", "--iterations", 5, "--device", "cpu"]
    succeed(*command)
    marker, done, of_today = as_of_old(feature_store)
    refuse(*command, says=["sweep: holds this sweep, with 1 of its 2 heads done", "--resume"])
    kept = done.read_bytes()
    said = succeed(*command, "--resume").stderr
    assert "weight-balancing has changed since" in said
    assert "those of other methods stay" in said
    assert done.read_bytes() == kept
    assert sorted(pd.read_csv("sweep/results.csv")["head"]) == sorted([done.stem, of_today])
    assert "has changed since" not in succeed(*command, "--resume").stderr
    succeed("analyze", "sweep")
    marker.write_text("{")
    refuse(*command, "--resume", says=["sweep.json: damaged", "--overwrite"])


def as_of_old(store: Path) -> tuple[Path, Path, str]:
    """Make the sweep one of version 0.1: its sweep.json, the file of both heads, and today's id of one."""
    marker = Path("sweep/sweep.json")
    content = json.loads(marker.read_text())
    for name in ("max_norm_every", "rank_by"):
        del content["options"][name]
    del content["made"]
    marker.write_text(json.dumps(content))
    base = FinetuneConfig(str(store), iterations=5, method="fsa")
    today = head_id(replace(base, method="weight-balancing").resolved(10))
    old = head_id(replace(base, method="weight-balancing", **OF_OLD).resolved(10))
    (done,) = Path("sweep/done").iterdir()  # the two share a plan
    done.write_text(done.read_text().replace(today, old))
    return marker, done, today
