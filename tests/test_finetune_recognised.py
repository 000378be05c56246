"""The share of fused samples that are still of their class, as Phase I's head sees it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import succeed
from made_interrupt import finetune_interrupted
from made_store import made_plan, made_rows, write_made

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.methods.registry import find_sampling
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from finetune.training.recognised import FACT, recognised_facts, warning_of
from finetune.training.trainer import LoadedStore, Trainer
from store.reader import FeatureStore

CPU = torch.device("cpu")
UNIFORM = {"method": "fsa", "sampling": "uniform", "mix_share": 0.5}


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), str(tmp_path / "run"), "fsa", iterations=70, device="cpu")


def share_of(config: FinetuneConfig, quiet) -> float | None:
    return finetune(replace(config, overwrite=True), quiet).config["facts"][FACT]


def counted(config: FinetuneConfig, n_iterations: int) -> float:
    """The same mean of the classes' shares in %, one sample after the other, in float64."""
    store = FeatureStore(Path(config.store))
    config = config.resolved(len(store.class_names))
    plan = find_sampling(config).draw(plan_inputs(config, store), 0, n_iterations)
    vectors = store.read_feature_map().astype(np.float64)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    label, (weight, bias) = store.read("train").label, store.classifier
    shares = np.bincount(label, minlength=len(weight)) / len(label)
    found = {}
    for iteration, sample in np.ndindex(plan.mix.row.shape):
        if plan.mix.is_mixed is None or plan.mix.is_mixed[iteration, sample]:
            logits = weight @ vectors[plan.mix.vectors[iteration, sample]].mean(axis=0) + bias
            adjusted = {c: logits[c] - np.log(shares[c]) for c in range(len(weight)) if shares[c] > 0}
            of = label[plan.mix.row[iteration, sample]]
            found.setdefault(of, []).append(max(adjusted, key=adjusted.get) == of)
    return 100 * np.mean([np.mean(of_class) for of_class in found.values()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        UNIFORM,
        UNIFORM | {"sampling": "balanced", "mix_classes": "all"},
        {"method": "fsa+balanced-softmax"},
    ],
    ids=["in halves", "of uniform batches", "of all classes", "default"],
)
def test_share_is_counted_of_the_first_64_iterations(config, options, quiet):
    config = replace(config, **options)
    assert share_of(config, quiet) == pytest.approx(counted(config, 64), abs=0.06)  # one decimal is kept
    assert share_of(replace(config, iterations=3), quiet) == pytest.approx(counted(config, 3), abs=0.06)


def test_class_without_images_recognises_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = made_rows()
    rows["train/label"][rows["train/label"] == 1] = 2  # the class in the middle has no image left
    rows["classifier/bias"] = np.float32([0, 50, 0])  # and the head calls everything that
    write_made(Path("feats.zarr"), made_plan(), rows)
    changed = UNIFORM | {"mix_classes": "all", "donors": "all", "confusing_classes": 1}
    config = FinetuneConfig("feats.zarr", None, iterations=64, device="cpu", **changed)
    loaded = LoadedStore.open(FeatureStore(Path("feats.zarr")), "decoupling", CPU, Threads(1))
    trainer = Trainer([config.resolved(3)], loaded)
    by_hand = counted(config, 64)
    assert recognised_facts(trainer, loaded)[FACT] == pytest.approx(by_hand, abs=0.06)
    assert by_hand > 0


@pytest.mark.parametrize(
    "changed",
    [{"window": 7}, {"window": 1000}, {"residency": "stream", "memory": 1e-3}, {"seed": 1}],
    ids=str,
)
def test_share_depends_on_the_plan_alone(config, changed, quiet):
    same = share_of(config, quiet) == share_of(replace(config, lr=0.1, **changed), quiet)
    assert same is ("seed" not in changed)


def test_share_of_a_resumed_run_is_that_of_its_beginning(config, quiet):
    whole = share_of(replace(config, out=config.out + "-whole"), quiet)
    finetune_interrupted(config, lambda begun, start: start > 0)
    assert whole == finetune(replace(config, resume=True), quiet).config["facts"][FACT]


@pytest.mark.parametrize("method", ["no-aug", "h2t", "logit-adjustment"])
def test_methods_that_fuse_nothing_have_no_share(config, method, quiet):
    assert FACT not in finetune(replace(config, method=method), quiet).config["facts"]


def test_share_is_none_where_nothing_was_fused(config, quiet):
    config = replace(config, **UNIFORM | {"mix_share": 0.01, "iterations": 1, "batch_size": 2})
    shares = {share_of(replace(config, seed=seed), quiet) for seed in range(8)}
    assert None in shares
    assert shares <= {None, 0.0, 100.0}


def test_user_is_told_of_samples_that_are_strangers():
    assert "recognises 79.9 % of" in warning_of({FACT: 79.9})
    assert warning_of({FACT: 80.0}) is None
    assert warning_of({FACT: None}) is None
    assert warning_of({}) is None


@pytest.mark.parametrize("least", [0.0, 101.0])
def test_finetune_tells_of_strangers_once(config, least, monkeypatch):
    monkeypatch.setattr("finetune.training.recognised.HELPFUL", least)
    run = "finetune", "--store", config.store, "--out", config.out, "--iterations", "5", "--device", "cpu"
    assert succeed(*run).stderr.count("of the fused samples as their class") == (least > 100)
