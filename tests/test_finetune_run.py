import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import write_images
from click.testing import CliRunner
from made_course import N_ALIKE, RARE
from rich.progress import Progress

from analysis.shots import GROUPS
from cli import main
from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig, EvaluateConfig, ExtractConfig, NetworkConfig, TrainConfig
from extract.dump import extract
from extract.evaluate import evaluate
from extract.train import train
from finetune.config import FinetuneConfig
from finetune.loading.features import load_features
from finetune.loading.residency import Residency, hold_maps
from finetune.loading.window import WindowMaker
from finetune.methods.registry import METHODS
from finetune.run import read_run
from finetune.sweep.config import SweepConfig
from finetune.sweep.sweep import sweep
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from store.errors import UserError
from store.reader import FeatureStore


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), str(tmp_path / "run"), "fsa", iterations=150, device="cpu")


def batches_of(config: FinetuneConfig):
    """The store, the plan's inputs, and the plan and batches of 150 iterations, 64 at a time."""
    store = FeatureStore(Path(config.store))
    config = config.resolved(len(store.class_names))
    inputs, draw = plan_inputs(config, store), METHODS[config.method].sampling.draw
    cpu = torch.device("cpu")
    maker = WindowMaker(draw, inputs, load_features(store, cpu), hold_maps(store, Residency("host", ""), cpu))
    windows = [maker.make(bounds) for bounds in ((0, 64), (64, 128), (128, 150))]
    made = [pair for window in windows for pair in zip(window.pooled, window.label, strict=True)]
    return store, inputs, draw(inputs, 0, 150), made


def test_every_row_of_a_batch_has_its_own_label(config):
    store, _, plan, made = batches_of(config)
    label = store.read("train").label
    for iteration, (pooled, its_label) in enumerate(made):
        assert pooled.shape == (128, 32)  # 16 channels, a 1 and zeros
        np.testing.assert_array_equal(its_label.numpy(), label[plan.row[iteration]])
    assert all(len(set(its_label[:16].tolist())) > 1 for _, its_label in made)  # not the first row's label


def test_real_rows_are_the_stored_pooled_features(config):
    store, _, plan, made = batches_of(config)
    pooled = store.read("train").pooled
    for iteration, (batch, _) in enumerate(made):
        np.testing.assert_array_equal(batch[:80, :16].numpy(), pooled[plan.row[iteration, :80]])


def test_every_feature_has_a_one_for_the_bias_and_zeros(config):
    for batch, _ in batches_of(config)[-1]:
        assert batch[:, 16].eq(1).all()
        assert batch[:, 17:].eq(0).all()


def test_augmented_rows_equal_algorithm_1_taken_literally(config):
    store, _, plan, made = batches_of(config)
    maps, cam = store.read_feature_map(), store.read_cam().astype(np.float64)
    n_positions = maps.shape[1] * maps.shape[2]
    maps, cam = maps.reshape(len(maps), n_positions, -1), cam.reshape(len(cam), -1)
    for iteration in (0, 63, 64, 149):  # both sides of a window's edge
        augmented = made[iteration][0][80:, :16].numpy()
        for j, (c, u) in enumerate(zip(plan.mix.row[iteration], plan.mix.donor_row[iteration], strict=True)):
            n_s = plan.mix.n_specific[iteration, j]
            position = plan.mix.vectors[iteration, j] % n_positions
            specific, generic = position[:n_s], position[n_s:]
            if (cam[c] > config.tau_s).any():
                assert (cam[c, specific] > config.tau_s).all()
            if (cam[u] < config.tau_g).any():
                assert (cam[u, generic] < config.tau_g).all()
            merged = np.concatenate([maps[c, specific], maps[u, generic]])
            assert len(merged) == n_positions
            np.testing.assert_allclose(augmented[j], merged.mean(0), rtol=1e-4, atol=1e-6)


def test_augmented_rows_are_new_samples(config):
    store, _, plan, made = batches_of(config)
    pooled = store.read("train").pooled
    augmented = torch.stack([batch[80:, :16] for batch, _ in made]).numpy()
    assert not np.isclose(augmented, pooled[plan.mix.row]).all(axis=2).any()
    assert (np.abs(augmented).sum(axis=2) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_gives_the_same_bytes(config, method, tmp_path, quiet):
    heads = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        finetune(replace(config, out=str(tmp_path / name), method=method, seed=seed), quiet)
        heads.append((tmp_path / name / "head.pt").read_bytes())
    assert heads[0] == heads[1]
    assert (heads[0] != heads[2]) is (METHODS[method].sampling is not None)  # not post-hoc heads


def test_run_folder_holds_what_it_should(config, quiet, tmp_path):
    finetune(config, quiet)
    out = tmp_path / "run"
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "metrics.csv",
        "per_class.csv",
        "predictions.csv",
        "summary.json",
        "head.pt",
        "checkpoint.pt",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing unfinished beside it
    metrics = pd.read_csv(out / "metrics.csv")
    assert metrics["iteration"].tolist() == [0, 100, 150]
    measures = ("overall", "balanced_accuracy", *GROUPS)
    assert metrics["loss"][1:].notna().all()
    assert {f"val_{name}" for name in measures} | {"iteration", "loss"} == set(metrics.columns)
    per_class = pd.read_csv(out / "per_class.csv")
    columns = ["class_id", "class_name", "n_train", "n_test", "n_correct", "accuracy", "shot_group"]
    assert per_class.columns.tolist() == columns
    assert per_class["n_train"].tolist() == load_checkpoint(out / "checkpoint.pt").class_counts
    summary = json.loads((out / "summary.json").read_text())
    assert summary["overall"] == pytest.approx(100 * per_class["n_correct"].sum() / 300)
    assert summary["val"]["overall"] == pytest.approx(metrics["val_overall"].iloc[-1])
    assert summary["val"]["phase1"]["overall"] == pytest.approx(metrics["val_overall"].iloc[0])
    assert sum(summary["n_classes"][group] for group in GROUPS) == 10
    assert summary["n_classes"]["head"] + summary["n_classes"]["tail"] == 10
    assert summary["balanced_accuracy"] == pytest.approx(per_class["accuracy"].mean())
    assert json.loads((out / "config.json").read_text())["tau_g"] == config.tau_g


def test_only_the_fc_layer_changes(config, quiet, phase1, tmp_path):
    finetune(config, quiet)
    before, after = load_checkpoint(phase1).state, load_checkpoint(tmp_path / "run" / "checkpoint.pt").state
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    head = torch.load(tmp_path / "run" / "head.pt", weights_only=True)
    assert torch.equal(head["weight"], after["classifier.weight"])
    assert torch.equal(head["bias"], after["classifier.bias"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluate_on_images_counts_what_the_cached_run_counted(phase1, tmp_path, quiet, precision):
    store = tmp_path / "feats.zarr"
    extract(ExtractConfig(str(phase1), str(store), precision=precision, device="cpu"), quiet)
    config = FinetuneConfig(str(store), str(tmp_path / "run"), iterations=200, device="cpu")
    run = finetune(config, quiet)
    frame = evaluate(
        EvaluateConfig(str(tmp_path / "run" / "checkpoint.pt"), precision=precision, device="cpu"), quiet
    )
    assert frame["n_correct"].tolist() == run.per_class["n_correct"].tolist()
    assert int(frame["n_correct"].sum()) == run.summary["n_correct"]


@pytest.mark.parametrize("method", ["fsa", "no-aug"])
def test_fine_tuning_helps_the_tail(course_store, tmp_path, quiet, method):
    config = FinetuneConfig(str(course_store), str(tmp_path / "run"), method, iterations=60, lr=0.01)
    run = finetune(replace(config, device="cpu"), quiet)
    assert run.config["facts"]["tail_classes"] == [RARE]
    label = run.predictions["label"]
    before, after = (run.predictions[name] == label for name in ("phase1", "prediction"))
    assert before.equals(label != RARE)  # Phase I mistakes the tail for the head
    assert after[label == RARE].all()
    assert (~after[label != RARE]).sum() == N_ALIKE  # and only head images that look like the tail are lost


def test_head_weights_start_from_phase_1(config, quiet):
    run = finetune(replace(config, iterations=1, lr=1e-12), quiet)
    assert (run.predictions["phase1"] == run.predictions["prediction"]).all()


def test_a_1x1_map_is_refused(small_root, tmp_path, quiet):
    # An ImageNet stem brings 32×32 images down to one position.
    dataset = DatasetConfig("imagefolder", str(small_root))
    out = str(tmp_path / "phase1")
    network = NetworkConfig("resnet18")
    train(TrainConfig(out, network, dataset, image_size=32, epochs=1, device="cpu"), quiet)
    extract(ExtractConfig(f"{out}/checkpoint.pt", str(tmp_path / "feats.zarr"), device="cpu"), quiet)
    config = FinetuneConfig(str(tmp_path / "feats.zarr"), str(tmp_path / "run"), "fsa", device="cpu")
    config = replace(config, confusing_classes=2, head_ratio=0.4)
    with pytest.raises(UserError, match="1×1"):
        finetune(config, quiet)
    assert not (tmp_path / "run").exists()
    swept = SweepConfig(replace(config, select_on="test"), ("method=no-aug,fsa",), seeds=1)
    with pytest.raises(UserError, match="1×1"):  # before its first head
        sweep(swept, quiet, None)
    assert not (tmp_path / "run").exists()
    finetune(replace(config, method="no-aug"), quiet)  # it needs no maps


def test_fallbacks_are_reported(config, quiet):
    facts = finetune(replace(config, tau_s=0.999999, tau_g=0.000001), quiet).config["facts"]
    assert facts["empty_specific_percent"] == 0  # min-max normalised: a 1 and a 0 are always there
    assert facts["empty_generic_percent"] == 0


def test_moved_together_store_and_checkpoint_still_find_each_other(phase1, tmp_path, quiet):
    there = tmp_path / "there"
    shutil.copytree(phase1.parent, there / "phase1")
    extract(
        ExtractConfig(str(there / "phase1" / "checkpoint.pt"), str(there / "f.zarr"), device="cpu"), quiet
    )
    here = there.rename(tmp_path / "here")
    finetune(FinetuneConfig(str(here / "f.zarr"), str(here / "run"), iterations=2, device="cpu"), quiet)
    assert read_run(here / "run").summary["n_test"] == 300


@pytest.mark.figures
def test_cli_end_to_end(tmp_path):
    runner = CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(main, [*arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    phase1, store, runs = (str(tmp_path / name) for name in ("phase1", "feats.zarr", "runs"))
    small = ("--arch", "resnet8", "--width", "2", "--epochs", "1", "--imbalance-factor", "20")
    run("train", "--out", phase1, "--device", "cpu", *small)
    run("extract", "--ckpt", f"{phase1}/checkpoint.pt", "--store", store, "--device", "cpu")
    for seed in ("0", "1"):
        common = ("--store", store, "--iterations", "20", "--device", "cpu", "--seed", seed)
        run("finetune", *common, "--out", f"{runs}/fsa{seed}", "--method", "fsa")
        summary = run("finetune", *common, "--out", f"{runs}/no-aug{seed}", "--method", "no-aug", "--json")
        assert json.loads(summary)["n_test"] == 300
    evaluated = json.loads(run("evaluate", "--ckpt", f"{runs}/fsa0/checkpoint.pt", "--json"))
    assert (
        evaluated["n_correct"] == json.loads((tmp_path / "runs/fsa0/summary.json").read_text())["n_correct"]
    )
    folders = [f"{runs}/{name}" for name in ("fsa0", "fsa1", "no-aug0", "no-aug1")]
    table = run("analyze", *folders, "--out", str(tmp_path / "report"))
    assert "Phase I" in table
    assert "±" in table
    made = {path.name for path in (tmp_path / "report").iterdir()}
    figures = {"class_accuracy.png", "confusion.png", "learning_curve.png"}
    assert (
        made == {"summary.csv", "runs.csv", "per_class.csv", "confused_pairs.csv", "analysis.json"} | figures
    )
    compared = json.loads(run("analyze", *folders, "--out", str(tmp_path / "report"), "--json"))
    assert [row["configuration"] for row in compared["comparison"]] == ["Phase I", "fsa", "no-aug"]
    assert [row["n"] for row in compared["comparison"]] == [1, 2, 2]


def test_analyze_does_not_write_into_a_run(config, quiet):
    run = finetune(replace(config, iterations=2), quiet)
    before = (run.path / "per_class.csv").read_bytes()
    result = CliRunner().invoke(main, ["analyze", str(run.path), "--out", str(run.path)])
    assert result.exit_code == 2
    assert (run.path / "per_class.csv").read_bytes() == before


@pytest.mark.parametrize(("n_classes", "method"), [(2, "fsa"), (3, "fsa"), (2, "no-aug"), (2, "plain")])
def test_few_classes_are_fine_tuned_with_the_defaults(tmp_path, quiet, n_classes, method):
    """With K classes, a class can be confused with K − 1 others."""
    counts = {name: n for name, n in zip("abc", (60, 30, 2), strict=True) if name != "c" or n_classes == 3}
    counts["b"] = 30 if n_classes == 3 else 3
    run = finetune(replace(few_classes(tmp_path, counts), method=method), quiet)
    assert run.config["confusing_classes"] == n_classes - 1
    assert len(run.config["facts"]["tail_classes"]) == 1


@pytest.mark.parametrize("method", ["fsa", "no-aug", "plain"])
def test_only_plain_does_without_a_tail(tmp_path, quiet, method):
    config = replace(few_classes(tmp_path, {"a": 9, "b": 9}), method=method)
    if method != "plain":
        with pytest.raises(UserError, match=r"leaves no tail; lower it, .* or --method plain"):
            finetune(config, quiet)
        return
    run = finetune(config, quiet)
    assert run.config["facts"]["tail_classes"] == []
    result = CliRunner().invoke(main, ["analyze", str(run.path), "--out", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    assert "Tail (0)" in result.stdout


def few_classes(tmp_path: Path, counts: dict[str, int]) -> FinetuneConfig:
    """Options for a store of noise images with the given classes."""
    root = write_images(tmp_path / "images", counts)
    dataset = DatasetConfig("imagefolder", root=str(root))
    phase1, store = tmp_path / "phase1", str(tmp_path / "feats.zarr")
    network = NetworkConfig("resnet8", width=4)
    train(
        TrainConfig(out=str(phase1), network=network, dataset=dataset, image_size=16, epochs=1, device="cpu"),
        Progress(disable=True),
    )
    extract(ExtractConfig(str(phase1 / "checkpoint.pt"), store, device="cpu"), Progress(disable=True))
    return FinetuneConfig(store, str(tmp_path / "run"), iterations=2, device="cpu", method="fsa")
