"""`--select-on cv`: scores on held-out folds are those of stores that never had the held-out images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_fitted import PAIRS
from made_store import write_made
from rich.progress import Progress

from finetune.config import FinetuneConfig
from finetune.cross_validation.folds import CrossValidation
from finetune.heads.threads import single_threaded
from finetune.run import Run
from finetune.train import finetune_in_memory
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_groups, image_names
from store.layout import store_layout
from store.reader import FeatureStore
from store.spec import StoreSpec

QUIET = Progress(disable=True)


@pytest.fixture
def fitted(pairs_store: Path) -> Path:
    """A store without val whose images come in pairs."""
    return pairs_store


@pytest.fixture
def config(fitted: Path) -> FinetuneConfig:
    quick = {"iterations": 24, "eval_every": 8, "lr": 0.3, "window": 5, "device": "cpu"}
    few_classes = {"confusing_classes": 2, "head_ratio": 0.5}
    return FinetuneConfig(str(fitted), None, select_on="cv", folds=3, **quick, **few_classes, method="fsa")


def cross_validation(store: FeatureStore, config: FinetuneConfig) -> CrossValidation:
    with single_threaded() as threads:
        loaded = LoadedStore.open(store, config.shot_rule, torch.device("cpu"), threads)
        return CrossValidation(loaded, config.resolved(len(PAIRS)), QUIET)


def rows_of_folds(store: FeatureStore, config: FinetuneConfig) -> list[np.ndarray]:
    """The rows that each fold trains on."""
    folds = cross_validation(store, config)
    return [folds.fold(i).store.rows for i in range(folds.n_folds)]


def without(store: FeatureStore, path: Path, fold) -> Path:
    """A store on disk of a fold's training rows, with the held-out ones as its val split."""
    kept, train = fold.store.rows, store.read("train")
    held = np.setdiff1d(np.arange(len(train.label)), kept)
    held = held[np.isin(train.sample_index[held], fold.held_out["cv"].sample_index)]
    (_, h, w, c), test = store.map_shape, store.read("test")
    sizes = {"train": len(kept), "val": len(held), "test": len(test.label)}
    sizes = {split: {"N": rows, "H": h, "W": w, "C": c} for split, rows in sizes.items()}
    rows = dict(zip(("classifier/weight", "classifier/bias"), fold.store.classifier, strict=True))
    for split, of in {"train": train.take(kept), "val": train.take(held), "test": test}.items():
        names = ("label", "sample_index", "view", "pooled")
        rows |= {f"{split}/{name}": np.array(getattr(of, name)) for name in names}
    rows["train/feature_map"] = store.read_feature_map()[kept]
    rows["train/cam"] = fold.store.read_cam()
    layout = store_layout(sizes, len(PAIRS), "float32", 8, "none")
    spec = StoreSpec(layout, "float32", store.class_names, store.provenance, {})
    write_made(path, spec, rows)
    return path


METHODS = ("fsa", "balanced-softmax", "crt", "lws", "tau-norm")


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_stores_without_the_held_out_images(method, config, fitted, tmp_path):
    store = FeatureStore(fitted)
    config = replace(config, method=method)
    run = finetune_in_memory(config, QUIET, store)
    n_right, n_held = np.zeros(4), np.zeros(4)
    right_at = dict.fromkeys(run.metrics["iteration"], 0.0)
    folds = cross_validation(store, config)
    for i in range(3):
        path = without(store, tmp_path / f"{i}.zarr", folds.fold(i))
        alone = finetune_in_memory(replace(config, store=str(path), select_on="val"), QUIET)
        held, layer = FeatureStore(path).read("val"), [part.numpy() for part in alone.head]
        predicted = (held.pooled @ layer[0].T + layer[1]).argmax(1)
        n_held += np.bincount(held.label, minlength=4)
        n_right += np.bincount(held.label[predicted == held.label], minlength=4)
        for _, row in alone.metrics.iterrows():
            right_at[row["iteration"]] += row["val_overall"] * len(held.label) / 100
    assert n_held.tolist() == [22, 12, 5, 0]  # the only dog is never held out
    measured = run.summary["cv"]
    assert measured["n_test"] == n_held.sum()
    assert measured["n_correct"] == n_right.sum()
    assert measured["overall"] == pytest.approx(100 * n_right.sum() / n_held.sum())
    assert measured["balanced_accuracy"] == pytest.approx(100 * np.mean(n_right[:3] / n_held[:3]))
    for _, row in run.metrics.iterrows():
        assert row["cv_overall"] == pytest.approx(100 * right_at[row["iteration"]] / n_held.sum())
    assert len(right_at) == (1 if method == "tau-norm" else 4)
    plain = finetune_in_memory(replace(config, select_on="test"), QUIET, store)
    assert all((a == b).all() for a, b in zip(run.head, plain.head, strict=True))  # of all rows


def test_each_fold_has_the_classifier_and_the_maps_of_its_own_rows(config, fitted):
    store = FeatureStore(fitted)
    train, maps = store.read("train"), store.read_feature_map()
    decay, folds = store.provenance["classifier"]["weight_decay"], cross_validation(store, config)
    cams = []
    for i in range(3):
        of_fold = folds.fold(i).store
        rows, (weight, bias) = of_fold.rows, of_fold.classifier
        pooled, label = train.pooled[rows].astype(float), train.label[rows]
        logits = pooled @ weight.T.astype(float) + bias
        error = np.exp(logits - logits.max(1, keepdims=True))
        error = error / error.sum(1, keepdims=True) - np.eye(len(PAIRS))[label]
        gradient = error.T @ pooled / len(rows) + decay * weight  # 0 where the objective is least
        assert np.abs(gradient).max() < 1e-5 * np.abs(pooled).mean()
        assert np.abs(error.mean(0)).max() < 1e-5
        raw = np.einsum("nhwc,nc->nhw", maps[rows].astype(float), weight[label].astype(float))
        low, high = (of(axis=(1, 2), keepdims=True) for of in (raw.min, raw.max))
        assert np.abs(of_fold.read_cam() - (raw - low) / (high - low)).max() < 2e-3
        cams.append(of_fold.read_cam()[0])
        assert (of_fold.read("train").pooled == train.pooled[rows]).all()
    assert not (cams[0] == cams[1]).all()


def test_what_belongs_together_is_in_one_fold_and_the_seed_decides_which(config, fitted):
    store = FeatureStore(fitted)
    train, group = store.read("train"), image_groups(store, "train")
    names = image_names(store, "train")
    assert [g.tobytes().rstrip(b"\0").decode() for g in group] == [name.partition("-")[0] for name in names]
    kept = rows_of_folds(store, config)
    for rows in kept:
        held = np.setdiff1d(np.arange(len(train.label)), rows)
        assert not {group[r].tobytes() for r in held} & {group[r].tobytes() for r in rows}
        assert set(train.label[rows]) == {0, 1, 2, 3}
    held = [np.setdiff1d(np.arange(len(train.label)), rows) for rows in kept]
    assert sorted(np.concatenate(held)) == list(range(39))
    same, other = (rows_of_folds(store, replace(config, **of)) for of in ({"seed": 7}, {"fold_seed": 1}))
    assert all((a == b).all() for a, b in zip(kept, same, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(kept, other, strict=True))


def test_the_best_head_is_that_of_the_steps_that_were_best_in_the_folds(config, fitted):
    run = finetune_in_memory(replace(config, keep="best", eval_every=3, method="balanced-softmax"), QUIET)
    best = run.metrics["cv_balanced_accuracy"].idxmax()  # the first of equals
    assert run.summary["kept_iteration"] == run.metrics["iteration"][best]
    assert run.summary["cv"]["balanced_accuracy"] == run.metrics["cv_balanced_accuracy"][best]
    assert 0 < run.summary["kept_iteration"] < 24
    until = replace(config, iterations=run.summary["kept_iteration"], method="balanced-softmax")
    last = finetune_in_memory(until, QUIET)
    assert all((a == b).all() for a, b in zip(run.head, last.head, strict=True))


def test_streamed_maps_and_other_windows_change_nothing(config, fitted):
    runs: list[Run] = [
        finetune_in_memory(replace(config, **ways), QUIET)
        for ways in ({}, {"residency": "stream", "memory": 3e-4, "window": 3, "prefetch": 0})
    ]
    assert runs[0].metrics.equals(runs[1].metrics)
    assert runs[0].summary["cv"] == runs[1].summary["cv"]


def test_shot_groups_are_those_of_the_whole_store(config, fitted):
    """All bees (12) and cats (5) make them Medium, though no fold trains on as many."""
    run = finetune_in_memory(replace(config, shot_rule="12,4", method="plain"), QUIET)
    scored = run.summary["cv"]
    assert scored["n_classes"] == {"many": 1, "medium": 2, "few": 1} | {"head": 1, "tail": 3}
    assert scored["few"] is None  # the dog
    assert scored["n_scored"] == {"many": 1, "medium": 2, "few": 0, "head": 1, "tail": 2}
    assert run.metrics["cv_few"].isna().all()
    assert scored["phase1"]["n_test"] == 39
    by_class = [scored[group] for group in ("many", "medium")]
    assert scored["balanced_accuracy"] == pytest.approx((by_class[0] + 2 * by_class[1]) / 3)
