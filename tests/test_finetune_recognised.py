"""The share of fused samples that are still of their class, as Phase I's head sees it."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import succeed
from made_interrupt import finetune_interrupted
from made_store import made_plan, made_rows, write_made

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from finetune.training.recognised import FACT, recognised_facts
from finetune.training.run_notes import notes_on_run
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

CPU = torch.device("cpu")
UNIFORM = {"method": "fsa", "sampling": "uniform", "mix_share": 0.5}


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), str(tmp_path / "run"), "fsa", iterations=70, device="cpu")


def share_of(config: FinetuneConfig, quiet) -> float | None:
    return finetune(replace(config, overwrite=True), quiet).config["facts"][FACT]


def counted(config: FinetuneConfig) -> float:
    """The same share in %, one sample after the other, in float64, of many more samples of every class."""
    store = FeatureStore(Path(config.store))
    config = config.resolved(len(store.class_names))
    inputs = plan_inputs(config, store)
    vectors = store.read_feature_map().astype(np.float64)
    n_positions = vectors.shape[1] * vectors.shape[2]
    vectors = vectors.reshape(-1, vectors.shape[-1])
    label, (weight, bias) = store.read("train").label, store.classifier
    shares = np.bincount(label, minlength=len(weight)) / len(label)
    generator, found = np.random.default_rng(0), []
    is_fused = inputs.confusing[:, 0] >= 0
    if config.mix_classes == "fill":
        is_fused[shares.argmax()] = False  # which lacks no row
    for c in np.flatnonzero(is_fused):
        rows = np.flatnonzero(label == c)
        for _ in range(1000 * (len(rows) > 0)):
            row = generator.choice(rows)
            donor = generator.choice(np.flatnonzero(label == generator.choice(inputs.confusing[c])))
            n_specific = np.clip(np.round(generator.random() * n_positions), 1, n_positions - 1).astype(int)
            own = inputs.specific.order[row, : inputs.specific.count[row]]
            others = inputs.generic.order[donor, : inputs.generic.count[donor]]
            drawn = [row * n_positions + generator.choice(own, n_specific)]
            drawn.append(donor * n_positions + generator.choice(others, n_positions - n_specific))
            logits = weight @ vectors[np.concatenate(drawn)].mean(axis=0) + bias
            adjusted = {k: logits[k] - np.log(shares[k]) for k in range(len(weight)) if shares[k] > 0}
            found.append(max(adjusted, key=adjusted.get) == c)
    return 100 * np.mean(found)


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
def test_share_is_that_of_many_samples(config, options, quiet):
    """Within four standard deviations of 2,048 samples, and those by hand."""
    assert share_of(replace(config, **options), quiet) == pytest.approx(
        counted(replace(config, **options)), abs=5
    )


def test_class_without_images_recognises_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = made_rows()
    rows["train/label"][rows["train/label"] == 1] = 2  # the class in the middle has no image left
    rows["classifier/bias"] = np.float32([0, 50, 0])  # and the head calls everything that
    write_made(Path("feats.zarr"), made_plan(), rows)
    changed = UNIFORM | {"mix_classes": "all", "donors": "all", "confusing_classes": 1}
    config = FinetuneConfig("feats.zarr", None, iterations=64, device="cpu", **changed)
    loaded = LoadedStore.open(FeatureStore(Path("feats.zarr")), "decoupling", CPU, Threads(1))
    inputs = plan_inputs(config.resolved(3), loaded.store, loaded.common)
    by_hand = counted(config)
    assert recognised_facts(config.resolved(3), inputs, loaded)[FACT] == pytest.approx(by_hand, abs=5)
    assert by_hand > 20


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_a_run_whose_tail_has_no_images_has_no_share(tmp_path, monkeypatch, residency):
    monkeypatch.chdir(tmp_path)
    rows = made_rows()
    rows["train/label"][rows["train/label"] == 2] = 1
    write_made(Path("feats.zarr"), made_plan(), rows)
    config = FinetuneConfig("feats.zarr", None, device="cpu", confusing_classes=1, residency=residency)
    config = replace(config, head_ratio=0.99).resolved(3)
    loaded = LoadedStore.open(FeatureStore(Path("feats.zarr")), "decoupling", CPU, Threads(1))
    inputs = plan_inputs(config, loaded.store, loaded.common)
    assert inputs.head_tail.tail.tolist() == [2]
    assert recognised_facts(config, inputs, loaded) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"window": 7},
        {"iterations": 3},
        {"residency": "stream", "memory": 1e-3},
        {"tail_draw": "samples", "lr": 0.1},
        {"tau_s": 0.2, "tau_g": 0.9},
        {"seed": 1},
    ],
    ids=str,
)
def test_share_depends_on_samples_alone(config, changed, quiet):
    same = share_of(config, quiet) == share_of(replace(config, **changed), quiet)
    assert same == set(changed).isdisjoint({"tau_s", "seed"})


def test_share_is_nearly_the_same_for_every_seed_and_batch(config, quiet):
    several = [replace(config, seed=seed, **more) for seed in range(3) for more in ({}, UNIFORM)]
    shares = [share_of(one, quiet) for one in several]
    assert max(shares) - min(shares) < 6  # standard deviations of a point


def test_a_resumed_run_has_the_same_share(config, quiet):
    whole = share_of(replace(config, out=config.out + "-whole"), quiet)
    finetune_interrupted(config, lambda begun, start: start > 0)
    assert whole == finetune(replace(config, resume=True), quiet).config["facts"][FACT]


@pytest.mark.parametrize("method", ["no-aug", "h2t", "logit-adjustment"])
def test_methods_that_fuse_nothing_have_no_share(config, method, quiet):
    assert FACT not in finetune(replace(config, method=method), quiet).config["facts"]


@pytest.mark.parametrize(
    ("options", "share", "is_told"),
    [
        ({}, 79.9, True),
        ({}, 80.0, False),
        ({"method": "fsa+balanced-softmax"}, 30.0, False),
        ({"sampling": "uniform"}, 30.0, False),
        ({"loss": "balanced-softmax"}, 30.0, False),
        ({"fuse_after": "layer1"}, 30.0, False),
        ({"method": "no-aug"}, None, False),
    ],
    ids=str,
)
def test_user_is_told_of_strangers_where_they_did_harm(config, options, share, is_told):
    facts = {} if share is None else {FACT: share}
    notes = notes_on_run(asdict(replace(config, **options).resolved(10)) | {"facts": facts}, [])
    assert bool(notes) == is_told
    assert not notes or f"recognises {share:g} % of the fused samples" in notes[0]


@pytest.mark.parametrize("least", [0.0, 101.0])
def test_finetune_tells_of_strangers_once(config, least, monkeypatch):
    monkeypatch.setattr("finetune.training.run_notes.LEAST", least)
    run = ["--store", config.store, "--out", config.out, "--iterations", "5", "--device", "cpu"]
    said = succeed("finetune", *run, "--method", "fsa").stderr
    assert said.count("of the fused samples") == (least > 100)
