"""The contest: who goes on, what is ranked, what is told apart, and the winner's run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import TINY, refuse, run, succeed
from made_contest import FEW, of_methods

from finetune.contest import entries
from finetune.contest.contest import contest
from finetune.contest.entries import ENTRIES, Entry
from finetune.contest.folder import KeptHeads
from finetune.contest.rounds import going_on, n_kept, n_trained
from finetune.methods.registry import METHODS
from finetune.one_head import posthoc_head
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_every_method_takes_part():
    assert {entry.method for entry in ENTRIES.values()} == METHODS.keys()


def test_a_third_goes_on_and_heads_are_counted_before():
    assert [n_kept(n) for n in (1, 2, 3, 4, 9, 10)] == [1, 1, 1, 2, 3, 4]
    assert (n_trained(10, 1), n_trained(10, 2), n_trained(10, 3), n_trained(1, 3)) == (10, 14, 16, 3)
    scores = {"a": [1.0, 4.0], "b": [3.0], "c": [9.0, np.nan], "d": [2.5]}
    assert going_on("abcd", scores) == ["b", "a"]  # of equals the earlier; what diverged does not
    orders = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1]}  # whose sums differ in the last bit
    assert going_on("ab", orders) == ["a"]
    assert going_on("ba", orders) == ["b"]
    assert going_on("c", scores) == []


@pytest.mark.usefixtures("few_entries")
def test_the_rounds_repeated_by_hand(contest_config, quiet, monkeypatch):
    """From the table of all heads: who was trained, and what each entry chose. Test says the opposite."""
    keep = KeptHeads.keep

    def turned(kept, rows, layers, held):
        others = [{f"test{k[3:]}": 100 - v for k, v in row.items() if k.startswith("val_")} for row in rows]
        keep(kept, [row | other for row, other in zip(rows, others, strict=True)], layers, held)

    monkeypatch.setattr(KeptHeads, "keep", turned)
    found = contest(contest_config, quiet)
    heads = pd.read_csv("c/heads.csv")
    assert heads["seed"].value_counts().to_dict() == {0: 17, 1: 3, 2: 2}
    assert len(heads) == sum(n_trained(len(list(e.choices())), 3) for e in FEW.values()) - 4 - 2  # no seeds
    for entry, of_entry in heads.groupby("entry"):
        left = list(of_entry["configuration"].unique())
        for seed in range(3):
            of_seed = of_entry[of_entry["seed"] == seed]
            if len(of_seed):
                assert sorted(of_seed["configuration"]) == sorted(left)
            so_far = of_entry[(of_entry["seed"] <= seed) & of_entry["configuration"].isin(left)]
            mean = so_far.groupby("configuration")["val_balanced_accuracy"].mean().round(9)
            left = sorted(left, key=lambda name, mean=mean: -mean[name])[: -(-len(left) // 3)]
        row = found.table[found.table["entry"] == entry].iloc[0]
        assert row["chosen"] == left[0]
        chosen = of_entry[of_entry["configuration"] == left[0]]
        assert row["n"] == len(chosen) == (1 if entry == "logit-adjustment" else 3)
        for score in ("val_balanced_accuracy", "test_overall", "test_tail"):
            assert row[f"{score}_mean"] == pytest.approx(chosen[score].mean())
    order = found.table["val_balanced_accuracy_mean"].tolist()
    assert order == sorted(order, reverse=True)
    behind = found.table["val_behind"]
    np.testing.assert_allclose(behind, order[0] - np.array(order), atol=1e-9)
    assert (found.table["val_behind_low"] <= behind).all()
    assert (behind <= found.table["val_behind_high"]).all()
    assert (found.table["together"] == (found.table["val_behind_low"] <= 0)).all()


@pytest.mark.usefixtures("few_entries")
def test_the_winner_is_a_run_like_any_other(feature_store):
    said = succeed(
        "contest", "--store", feature_store, "--out", "c", "--iterations", 30, "--device", "cpu"
    ).stdout
    first = of_methods(pd.read_csv("c/standings.csv")).iloc[0]
    assert f"{first['entry']}: {first['chosen']}" in said
    options = [f"--{part.replace('_', '-').replace('=', ' ')}" for part in first["chosen"].split(", ")]
    command = ["finetune", "--store", feature_store, "--out", "by-hand", "--method", first["entry"]]
    succeed(*command, "--iterations", 30, "--device", "cpu", *" ".join(options).split())
    heads = [torch.load(Path(out, "head.pt"), weights_only=True) for out in ("by-hand", "c/best")]
    assert torch.equal(heads[0]["weight"], heads[1]["weight"])
    assert torch.equal(heads[0]["bias"], heads[1]["bias"])
    rows = pd.read_csv("c/heads.csv")
    row = rows[(rows["entry"] == first["entry"]) & (rows["configuration"] == first["chosen"])].iloc[0]
    summary = json.loads(Path("c/best/summary.json").read_text())
    assert row["test_balanced_accuracy"] == pytest.approx(summary["balanced_accuracy"])
    assert row["val_overall"] == pytest.approx(summary["val"]["overall"])
    succeed("evaluate", "--ckpt", "c/best/checkpoint.pt", "--device", "cpu")


@pytest.mark.usefixtures("few_entries")
def test_several_stores_are_averaged_and_choose_together(contest_config, quiet, feature_store):
    """Another seed of Phase I; every entry has one configuration for both."""
    subset = ["--imbalance-factor", 20, "--val-per-class", 5, "--seed", 1]
    succeed("train", "--dataset", "digits", *subset, *TINY, "--out", "p1")
    succeed("extract", "--ckpt", "p1/checkpoint.pt", "--store", "other.zarr", "--device", "cpu")
    found = contest(replace(contest_config, store=(*contest_config.store, "other.zarr")), quiet)
    heads = pd.read_csv("c/heads.csv")
    assert heads["store"].value_counts().to_dict() == {str(feature_store): 22, "other.zarr": 22}
    first = heads[heads["seed"] == 0]
    taus = (
        first[first["entry"] == "logit-adjustment"].groupby("configuration")["val_balanced_accuracy"].mean()
    )
    row = found.table[found.table["entry"] == "logit-adjustment"].iloc[0]
    assert row["chosen"] == taus.round(9).idxmax()
    assert row["val_balanced_accuracy_mean"] == pytest.approx(taus.max())
    for row in of_methods(found.table).to_dict("records"):
        of_row = heads[(heads["entry"] == row["entry"]) & (heads["configuration"] == row["chosen"])]
        by_store = of_row.groupby("store")["test_overall"].mean()
        assert row["test_overall_mean"] == pytest.approx(by_store.mean())
        assert row["test_overall_std"] == pytest.approx(by_store.std(ddof=1))
    made = [json.loads((out / "config.json").read_text())["store"] for out in found.best]
    assert made == [str(feature_store), "other.zarr"]


@pytest.mark.usefixtures("few_entries")
def test_stores_that_cannot_be_averaged_are_refused(feature_store, course_store):
    shutil.copytree(feature_store, "copy.zarr")
    given = ["contest", "--store", feature_store, "--device", "cpu"]
    refuse(*given, "--store", "copy.zarr", says=["copy.zarr: holds the same features as"])
    refuse(*given, "--store", course_store, says=["has other classes than", "run a contest for each"])
    refuse(*given, "--store", "copy.zarr", "--ckpt", "p1.pt", says=["--ckpt p1.pt: is of one store, and 2"])


@pytest.mark.usefixtures("few_entries")
def test_stores_of_one_phase_1_are_told_of(feature_store):
    succeed("store", "convert", feature_store, "coded.zarr", "--dtype", "int8")
    given = ["contest", "--store", feature_store, "--device", "cpu", "--methods", "logit-adjustment"]
    assert "Phase I" not in succeed(*given, "--out", "one").stderr
    said = succeed(*given, "--store", "coded.zarr", "--out", "both").stderr
    assert f"coded.zarr: is of the same Phase I as {feature_store}" in said


@pytest.mark.usefixtures("few_entries")
def test_of_stores_of_other_imbalance_only_what_means_the_same_is_averaged(feature_store):
    """A class that is rare in one is not in the other, so Few of both is a mean of nothing."""
    flatter = ["--imbalance-factor", 2, "--val-per-class", 5]
    succeed("train", "--dataset", "digits", *flatter, *TINY, "--out", "p1")
    succeed("extract", "--ckpt", "p1/checkpoint.pt", "--store", "flat.zarr", "--device", "cpu")
    given = ["contest", "--device", "cpu", "--iterations", 20, "--seeds", 1, "--out", "c"]
    said = succeed(*given, "--store", feature_store, "--store", "flat.zarr")
    assert "flat.zarr: has other classes in Many, Medium and Few" in said.stderr
    assert "test tail" not in said.stdout
    table, heads = (pd.read_csv(f"c/{name}.csv") for name in ("standings", "heads"))
    groups = [f"{split}_{group}_mean" for split in ("val", "test") for group in ("many", "few", "tail")]
    assert table[groups].isna().all(axis=None)
    assert heads["test_tail"].notna().all()  # each by the groups of its own store
    for row in of_methods(table).to_dict("records"):
        of_row = heads[(heads["entry"] == row["entry"]) & (heads["configuration"] == row["chosen"])]
        assert row["test_overall_mean"] == pytest.approx(of_row["test_overall"].mean())


def test_folds_that_change_nothing_are_told_and_do_not_count(feature_store):
    given = ["contest", "--store", feature_store, "--device", "cpu", "--methods", "ncm", "--out", "c"]
    said = succeed(*given, "--folds", 3)
    assert "note: --folds changes nothing: it is for --select-on cv" in said.stderr
    assert "--folds" not in succeed(*given, "--resume").stderr


def test_a_choice_at_the_end_of_its_grid_is_told(contest_config, quiet, monkeypatch):
    entry = Entry("plain", {"lr": (1, 2, 3), "momentum": (0.0, 0.5, 0.9), "loss": ("ce", "focal", "isda")})
    chosen = {"lr": 3, "momentum": 0.0, "loss": "ce"}
    assert entry.at_edge(chosen) == ["lr"]
    assert entry.at_edge(chosen | {"lr": 2, "momentum": 0.9}) == ["momentum"]
    assert Entry("plain", {"lr": (1, 2)}).at_edge({"lr": 2}) == []
    some = {"tau-norm": Entry("tau-norm", {"tau": (30.0, 40.0, 50.0)}), "ncm": ENTRIES["ncm"]}
    monkeypatch.setattr(entries, "ENTRIES", some)
    found = of_methods(contest(contest_config, quiet).table).set_index("entry")
    assert found["at_edge"].to_dict() == {"tau-norm": "tau=30", "ncm": ""}
    said = succeed("contest", "--store", contest_config.store[0], "--out", "d", "--device", "cpu")
    assert "at an end of the grid, beyond which it may do better: tau-norm (tau=30)\n" in said.stdout


def test_a_head_that_cannot_be_computed_is_told_with_its_reason(contest_config, monkeypatch):
    some = {"logit-adjustment": Entry("logit-adjustment", {"tau": (1.0, 4e9)}), "ncm": ENTRIES["ncm"]}
    monkeypatch.setattr(entries, "ENTRIES", some)
    monkeypatch.setattr("finetune.sweep.batch.posthoc_head", no_head_for_large_tau)
    said = succeed("contest", "--store", contest_config.store[0], "--out", "c", "--device", "cpu")
    assert "note: a head is left out: --tau 4e+09 is too large" in said.stderr
    assert len(of_methods(pd.read_csv("c/standings.csv"))) == 2


def no_head_for_large_tau(config, loaded):
    if config.tau > 1e9:
        raise UserError(f"--tau {config.tau:g} is too large")
    return posthoc_head(config, loaded)


@pytest.mark.usefixtures("few_entries")
def test_a_store_without_validation_images_is_chosen_on_in_folds(pairs_store):
    """Of a fitted classifier: a sweep's accuracies, heads that are resumed, the winner a run of its own."""
    given = ["--store", pairs_store, "--device", "cpu", "--iterations", 12, "--select-on", "cv"]
    given += ["--folds", 3, "--fold-seed", 4]
    said = succeed("contest", *given, "--seeds", 2, "--out", "c")
    assert "training images, each held out once" in said.stdout
    assert "val" not in said.stdout.replace("interval", "")
    table, heads = (pd.read_csv(f"c/{name}.csv") for name in ("standings", "heads"))
    succeed("sweep", *given, "--seeds", 1, "--out", "s", "--method", "crt", "--grid", "lr=0.01,0.1")
    of_sweep = pd.read_csv("s/results.csv")
    for row in of_sweep.to_dict("records"):
        name = f"lr={row['lr']:g}, weight_decay=0.0005"
        found = heads[(heads["configuration"] == name) & (heads["seed"] == 0)].iloc[0]
        for score in ("cv_overall", "cv_balanced_accuracy", "test_overall"):
            assert found[score] == pytest.approx(row[score])
    first = table.iloc[0]
    assert first["cv_behind"] == 0
    for row in table.to_dict("records"):
        lag = first["cv_balanced_accuracy_mean"] - row["cv_balanced_accuracy_mean"]
        assert row["cv_behind"] == pytest.approx(lag, abs=1e-9)
    summary = json.loads(Path("c/best/summary.json").read_text())
    assert summary["select_on"] == "cv"
    assert f"chosen and ranked on {summary['cv']['n_test']:,} training images" in said.stdout
    before = Path("c/standings.csv").read_bytes()
    succeed("contest", *given, "--seeds", 2, "--out", "c", "--resume")
    assert Path("c/standings.csv").read_bytes() == before
    other = ["--fold-seed", 5, "--out", "c", "--resume"]
    refuse("contest", *given[:-2], *other, says=["cannot resume: fold_seed was 4"])


def test_a_store_without_validation_images_is_refused(small_store):
    says = ["no val split to choose on", "--val-per-class", "--select-on cv"]
    refuse("contest", "--store", small_store, "--device", "cpu", says=says)
    says = ["its network was trained on these images, so held-out folds of them would flatter"]
    refuse("contest", "--store", small_store, "--device", "cpu", "--select-on", "cv", says=says)


def test_who_cannot_take_part_is_told_and_the_others_do(feature_store):
    """No class is left for a tail, of which halves need one."""
    command = ["contest", "--store", feature_store, "--out", "c", "--device", "cpu", "--head-ratio", 0.999]
    done = succeed(*command, "--iterations", 4, "--seeds", 1, "--methods", "no-aug,ncm,plain")
    assert "note: no-aug does not take part" in done.stderr
    assert set(of_methods(pd.read_csv("c/standings.csv"))["entry"]) == {"ncm", "plain"}
    refuse(*command[:4], "d", *command[5:], "--methods", "no-aug", says=["no method can take part"])


def test_what_diverges_does_not_win(contest_config, quiet, monkeypatch):
    wild = {"lr": (4e9,), "momentum": (4e9,)}
    some = {"plain": Entry("plain", {"momentum": (0.9, 4e9)}, {"lr": 4e9}), "crt": Entry("crt", wild)}
    monkeypatch.setattr(entries, "ENTRIES", some | {"ncm": ENTRIES["ncm"]})
    found = contest(replace(contest_config, methods="crt,plain,ncm", seeds=2), quiet)
    assert set(of_methods(found.table)["entry"]) == {"plain", "ncm"}
    assert found.table.set_index("entry").loc["plain", "chosen"] == "momentum=0.9"


def test_what_is_wrong_with_a_contest_is_one_line(feature_store, small_ckpt):
    given = ["contest", "--device", "cpu", "--iterations", 4, "--seeds", 1]
    store = ["--store", feature_store]
    refuse(*given, says=["no store to try", "give --store"])
    refuse(*given, *store, *store, says=["is given twice"])
    refuse(*given, *store, "--methods", "fsa,best", says=["no entry best", "expected some of fsa"])
    refuse(*given, *store, "--methods", ",", says=["names no entry"])
    refuse(*given, *store, "--seeds", 0, says=["--seeds 0"])
    refuse(*given, *store, "--head-ratio", 2, says=["--head-ratio 2: must lie between 0 and 1"])
    refuse(*given[:-1], 3, *store, "--seed", 2**32 - 2, says=["--seed 4294967294, --seeds 3"])
    refuse(*given, "--store", "nowhere.zarr", says=["nowhere.zarr"])
    Path("there").mkdir()
    Path("there/thesis.txt").write_text("mine")
    refuse(*given, *store, "--out", "there", "--overwrite", says=["holds thesis.txt"])
    succeed(*given, *store, "--methods", "ncm", "--out", "c")
    refuse(
        *given,
        *store,
        "--methods",
        "ncm",
        "--out",
        "c",
        says=["c: holds a contest", "--resume", "--overwrite"],
    )
    more = ["--methods", "ncm", "--out", "c", "--resume", "--iterations", 5]
    refuse(*given, *store, *more, says=["cannot resume: iterations was 4"])
    assert run(*given, *store, "--methods", "ncm", "--out", "c", "--overwrite").exit_code == 0
