"""Sweeps: every head is the same as alone; ranked on validation images, resumable, over processes."""

import json
import os
import socket
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from bad_input import run as invoke
from bad_input import succeed
from faults import ended, forked
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from finetune.config import FinetuneConfig
from finetune.loading.window import WindowMaker
from finetune.sweep.config import SweepConfig
from finetune.sweep.sweep import sweep
from finetune.train import finetune
from store.errors import Interrupted, UserError

SHORT = ("--iterations", 30, "--device", "cpu", "--window", 8)


@pytest.fixture
def base(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        str(feature_store), str(tmp_path / "sweep"), iterations=30, window=8, device="cpu", method="fsa"
    )


def run(config: SweepConfig, quiet) -> pd.DataFrame:
    return sweep(config, quiet, lambda rows: None).results


def test_every_head_is_what_it_would_be_alone(base, quiet, tmp_path):
    """Beside any others: other rates, losses, methods, plans; and the tables agree."""
    grid = ("method=fsa,no-aug,plain,balanced-softmax,crt,lws,tau-norm", "lr=0.001,0.05", "tau=0.5,1")
    results = run(SweepConfig(base, grid=(*grid, "loss=none"), seeds=2, heads=True), quiet)
    assert len(results) > 20
    for row in results.to_dict("records"):
        alone = FinetuneConfig(
            base.store,
            str(tmp_path / "alone"),
            method=row["method"],
            lr=row["lr"],
            tau=row["tau"],
            seed=row["seed"],
            iterations=30,
            device="cpu",
            overwrite=True,
        )
        made = finetune(alone, quiet)
        of_sweep = torch.load(tmp_path / "sweep" / "heads" / f"{row['head']}.pt", weights_only=True)
        of_run = torch.load(made.path / "head.pt", weights_only=True)
        assert torch.equal(of_sweep["weight"], of_run["weight"]), row["configuration"]
        assert torch.equal(of_sweep["bias"], of_run["bias"])
        assert row["test_overall"] == made.summary["overall"]
        assert row["val_overall"] == made.summary["val"]["overall"]


def test_heads_that_share_a_plan_share_its_windows(base, quiet, monkeypatch):
    made = []
    make = WindowMaker.make

    def counted(self, bounds):
        made.append(bounds)
        return make(self, bounds)

    monkeypatch.setattr(WindowMaker, "make", counted)
    run(SweepConfig(base, grid=("lr=0.001,0.01,0.1", "loss=ce,focal"), seeds=2), quiet)
    assert sorted(made) == sorted(2 * [(0, 8), (8, 16), (16, 24), (24, 30)])  # two seeds, six heads each


def test_options_that_do_not_matter_make_no_second_head(base, quiet):
    grid = ("method=plain,ncm,logit-adjustment", "tau=1,2", "lr=0.1,0.2")
    results = run(SweepConfig(base, grid=grid, seeds=1), quiet)
    names = [
        "plain, lr=0.1",
        "plain, lr=0.2",
        "ncm",
        "logit-adjustment, tau=1.0",
        "logit-adjustment, tau=2.0",
    ]
    assert results["configuration"].tolist() == names


def test_heads_of_two_configurations_have_two_names(base, quiet):
    for grid in (("tail_samples=4,8",), ("batch_size=64,128",), ("keep=best", "eval_every=5,10")):
        config = SweepConfig(replace(base, overwrite=True), grid=grid, seeds=2)
        results = run(config, quiet)
        assert results.groupby("configuration").size().tolist() == [2, 2], grid


def test_an_option_that_changes_nothing_is_refused(base, quiet):
    for grid in ("beta=0.9,0.99", "tau=1,2", "distance=cosine,euclidean", "max_norm=1,2"):
        method = "lws" if grid.startswith("max") else "fsa"
        config = SweepConfig(replace(base, method=method), grid=(grid,))
        with pytest.raises(UserError, match=r"is varied and changes nothing for (fsa|lws) with loss ce"):
            run(config, quiet)


def test_a_configuration_that_cannot_be_is_told_before_the_first_head(base, quiet, tmp_path):
    for grid in ("head_ratio=0.5,0.999", "donors=any,head"):
        config = SweepConfig(replace(base, confusing_classes=9, head_ratio=0.5), grid=(grid,))
        with pytest.raises(UserError, match=r"leaves no tail|donor classes"):
            run(config, quiet)
    assert not (tmp_path / "sweep").exists()


def test_a_posthoc_head_of_no_numbers_is_a_row_without_accuracies(base, quiet):
    config = SweepConfig(replace(base, method="tau-norm"), grid=("tau=1,1000",), seeds=1, heads=True)
    results = run(config, quiet)
    assert results["val_overall"].notna().tolist() == [True, False]


def test_overwriting_spares_what_is_not_ours_and_removes_leftovers(base, quiet, tmp_path):
    config = SweepConfig(base, grid=("lr=0.1,0.2",), seeds=1, heads=True)
    run(config, quiet)
    again = replace(config, base=replace(base, overwrite=True))
    for folder, name in (("heads", "thesis.txt"), ("done", "notes")):
        (tmp_path / "sweep" / folder / name).write_text("three years of work")
        with pytest.raises(
            UserError, match=rf"is not a sweep that may be replaced \(it holds {folder}/{name}\)"
        ):
            run(again, quiet)
        (tmp_path / "sweep" / folder / name).unlink()
    leftover = tmp_path / "sweep" / ".sweep.json.unfinished-1-ab"
    leftover.write_text("half")
    run(again, quiet)
    assert not leftover.exists()


def test_a_done_file_that_lacks_a_column_is_told(base, quiet, tmp_path):
    config = SweepConfig(base, grid=("lr=0.1,0.2",), seeds=1)
    run(config, quiet)
    (file,) = (tmp_path / "sweep" / "done").iterdir()
    file.write_text(json.dumps([{"head": file.stem}]))
    with pytest.raises(UserError, match=r"damaged .*; remove it and continue with --resume"):
        run(replace(config, base=replace(base, resume=True)), quiet)


def test_results_are_one_tidy_frame_in_two_formats(base, quiet, tmp_path):
    results = run(SweepConfig(base, grid=("method=fsa,logit-adjustment", "lr=0.001,0.01"), seeds=2), quiet)
    written = pd.read_csv(tmp_path / "sweep" / "results.csv")
    parquet = pd.read_parquet(tmp_path / "sweep" / "results.parquet")
    pd.testing.assert_frame_equal(written, parquet, check_dtype=False)
    assert len(results) == len(written) == 5  # logit adjustment has no learning rate and no seeds
    assert set(written["configuration"]) == {"fsa, lr=0.001", "fsa, lr=0.01", "logit-adjustment"}
    groups = ("overall", "balanced_accuracy", "many", "medium", "few")
    assert {f"{split}_{group}" for split in ("val", "test") for group in groups} <= set(written)
    ranking = pd.read_csv(tmp_path / "sweep" / "ranking.csv")
    assert ranking["val_balanced_accuracy_mean"].is_monotonic_decreasing
    assert set(ranking["configuration"]) == set(written["configuration"])
    for row in ranking.itertuples():
        heads = written[written["configuration"] == row.configuration]
        assert row.test_overall_mean == pytest.approx(heads["test_overall"].mean())
        assert row.test_overall_std == pytest.approx(
            heads["test_overall"].std(ddof=1), nan_ok=len(heads) == 1
        )


def test_a_head_that_diverges_takes_no_other_with_it(base, quiet):
    results = run(SweepConfig(replace(base, iterations=60), grid=("lr=0.001,4e9", "momentum=0.9,1e9")), quiet)
    calm = results[(results["lr"] == 0.001) & (results["momentum"] == 0.9)]
    wild = results[(results["lr"] == 4e9) & (results["momentum"] == 1e9)]
    assert calm["diverged_at"].isna().all()
    assert calm["val_overall"].notna().all()
    assert wild["diverged_at"].notna().all()
    assert wild["val_overall"].isna().all()


@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_sweep_ends_in_the_same_results(base, quiet, after, monkeypatch, tmp_path):
    config = SweepConfig(base, grid=("tau_s=0.2,0.5", "lr=0.001,0.01"), seeds=2)
    whole = run(SweepConfig(replace(base, out=str(tmp_path / "whole")), grid=config.grid, seeds=2), quiet)
    left = after

    def stop(rows: pd.DataFrame) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        sweep(config, quiet, stop)
    assert not (tmp_path / "sweep" / "results.csv").exists()
    made = []
    make = WindowMaker.make
    monkeypatch.setattr(WindowMaker, "make", lambda self, bounds: made.append(bounds) or make(self, bounds))
    resumed = run(replace(config, base=replace(base, resume=True, prefetch=0)), quiet)
    assert made.count((0, 8)) == 4 - after  # groups: two thresholds, two seeds
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"))


def test_a_sweep_is_not_mixed_with_another(base, quiet, tmp_path):
    config = SweepConfig(base, grid=("lr=0.001,0.01",), seeds=1)
    run(config, quiet)
    with pytest.raises(UserError, match="2 of its 2 heads done; pass --resume to continue it"):
        run(config, quiet)
    resumed = replace(config, base=replace(base, resume=True))
    with pytest.raises(UserError, match="cannot resume: seeds was 1, this command has 2"):
        run(replace(resumed, seeds=2), quiet)
    with pytest.raises(UserError, match=r"cannot resume: grid was \['lr=0.001,0.01'\]"):
        run(replace(resumed, grid=("lr=0.001",)), quiet)
    (tmp_path / "sweep" / "thesis.txt").write_text("three years of work")
    with pytest.raises(UserError, match=r"is not a sweep that may be replaced \(it holds thesis.txt\)"):
        run(replace(config, base=replace(base, overwrite=True)), quiet)


def test_keep_best_is_as_alone(base, quiet, tmp_path):
    base = replace(base, keep="best", eval_every=5)
    results = run(SweepConfig(base, grid=("lr=0.01,0.5",), seeds=1), quiet)
    for row in results.to_dict("records"):
        alone = replace(base, out=str(tmp_path / "alone"), lr=row["lr"], overwrite=True)
        summary = finetune(alone, quiet).summary
        assert (row["kept_iteration"], row["test_overall"]) == (summary["kept_iteration"], summary["overall"])


def test_all_processes_are_told_that_one_was_refused(base, tmp_path):
    """Started as by torchrun, which sets four variables."""
    (tmp_path / "spread").mkdir()
    (tmp_path / "spread" / "thesis.txt").write_text("three years of work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}

    def refused(rank: int) -> None:
        os.environ |= place | {"RANK": str(rank)}
        result = invoke("sweep", "--store", base.store, "--out", tmp_path / "spread")
        (tmp_path / f"said_{rank}").write_text(result.output)
        assert result.exit_code == 2

    children = [forked(partial(refused, rank)) for rank in range(2)]
    assert [ended(*child) for child in children] == [0, 0]
    (first,), (second,) = ((tmp_path / f"said_{rank}").read_text().splitlines() for rank in range(2))
    told = ("is not a sweep that may be replaced (it holds thesis.txt)", "another process stopped")
    assert told[0] in first + second
    assert all(any(part in line for part in told) for line in (first, second)), (first, second)


def test_torchrun_spreads_heads_over_processes(base, quiet, tmp_path):
    options = ["--grid", "lr=0.001,0.01,0.1", "--grid", "method=fsa,ncm", "--seeds", "1", *map(str, SHORT)]
    command = ["sweep", "--store", base.store, "--out", str(tmp_path / "spread"), *options]

    def ranked() -> None:
        (tmp_path / os.environ["RANK"]).write_text(succeed(*command).stdout)

    def launched() -> (
        None
    ):  # by what torchrun launches with, but forked: to import torch thrice takes longest
        how = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
        elastic_launch(how, ranked)()

    assert ended(*forked(launched)) == 0
    said = "".join((tmp_path / rank).read_text() for rank in "01")
    assert said.count("ranked on the validation split") == 1
    alone = run(SweepConfig(base, grid=("lr=0.001,0.01,0.1", "method=fsa,ncm"), seeds=1), quiet)
    spread = pd.read_parquet(tmp_path / "spread" / "results.parquet")
    pd.testing.assert_frame_equal(
        alone.drop(columns="seconds"), spread.drop(columns="seconds"), check_dtype=False
    )
