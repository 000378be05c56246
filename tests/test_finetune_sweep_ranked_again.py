"""Finished sweeps that are ranked again and resumed, version 0.1's included."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bad_input import refuse, succeed

OLD = Path(__file__).parent / "data" / "program_0_1"
SHORT = ["--iterations", 4, "--window", 4, "--device", "cpu"]
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def command(store: Path, *arguments: object, out: str = "sweep") -> list[object]:
    return ["sweep", "--store", store, "--out", out, *SHORT, "--seeds", 1, *arguments]


@pytest.fixture
def of_old() -> list[object]:
    """The command of version 0.1's sweep, with a copy of it."""
    shutil.copytree(OLD, "old")
    rest = ["--iterations", 20, "--grid", "tau_s=0.5,0.7", "--seeds", 2, "--device", "cpu", "--heads"]
    return ["sweep", "--store", "old/feats.zarr", "--out", "old/sweep", "--method", "fsa", *rest]


def asked(path: str) -> dict:
    return json.loads(Path(path, "sweep.json").read_text())["options"]


def test_a_sweep_of_version_0_1_is_known_for_what_it_is(of_old):
    refuse(*of_old, says=["old/sweep: holds this sweep, with 4 of its 4 heads done", "--resume"])
    others = [*of_old[:-1], "--lr", 0.5]
    refuse(*others, says=["old/sweep: holds another sweep"])


def test_an_accuracy_that_is_named_is_not_overruled(of_old):
    says = ["old/sweep: 4 heads of an older version have no balanced accuracy", "--rank-by out"]
    refuse(*of_old, "--resume", "--rank-by", "balanced", says=says)
    for _ in range(2):
        assert "still ranked by overall accuracy" in succeed(*of_old, "--resume").stderr
    assert "note: old/sweep: an older" not in succeed(*of_old, "--resume", "--rank-by", "overall").stderr
    for file in Path("old/sweep/done").iterdir():
        file.unlink()
    succeed(*of_old, "--resume", "--rank-by", "balanced")  # all heads have it
    assert pd.read_csv("old/sweep/ranking.csv")["rank_by"].unique().tolist() == ["balanced"]


def test_a_method_that_is_named_is_not_overruled(of_old):
    place = of_old.index("fsa")
    named = [*of_old[:place], "fsa+balanced-softmax", *of_old[place + 1 :], "--resume"]
    refuse(*named, says=["cannot resume: method was fsa, this command has fsa+balanced-softmax"])
    succeed(*of_old[: place - 1], *of_old[place + 1 :], "--resume")  # nothing is named: as it was begun


def test_a_finished_sweep_is_ranked_by_the_other_accuracy(feature_store):
    grid = ["--grid", "lr=0.001,0.1", "--grid", "method=plain,crt"]
    succeed(*command(feature_store, *grid))
    heads = {file.name: file.read_bytes() for file in Path("sweep/done").iterdir()}
    succeed("analyze", "sweep", "--rank-by", "overall", "--out", "report")
    succeed(*command(feature_store, *grid), "--resume", "--rank-by", "overall")
    assert {file.name: file.read_bytes() for file in Path("sweep/done").iterdir()} == heads
    for ranking in map(pd.read_csv, ("sweep/ranking.csv", "report/ranking.csv")):
        assert ranking["rank_by"].unique().tolist() == ["overall"]
        assert ranking["val_overall_mean"].is_monotonic_decreasing
    assert asked("sweep")["rank_by"] == "overall"
    shutil.copytree("sweep", "other")
    succeed(*command(feature_store, *grid, out="other"), "--resume")
    refuse("analyze", "sweep", "other", says=["--rank-by balanced", "or pass --rank-by"])
    succeed("analyze", "sweep", "other", "--rank-by", "balanced")


def test_heads_that_were_chosen_by_an_accuracy_are_bound_to_it(feature_store):
    succeed(*command(feature_store, "--keep", "best", "--eval-every", 2))
    again = [*command(feature_store, "--keep", "best", "--eval-every", 2), "--resume", "--rank-by", "overall"]
    refuse(*again, says=["cannot resume: rank_by was balanced, this command has overall"])


def test_what_heads_do_not_tell_is_not_ranked_by(of_old):
    says = ["old/sweep: heads of an older version have no balanced accuracy", "use --rank-by overall"]
    refuse("analyze", "old/sweep", "--rank-by", "balanced", says=says)
    succeed("analyze", "old/sweep", "--rank-by", "overall")


def test_runs_are_not_ranked(digits_run):
    assert (
        "--rank-by changes nothing for runs" in succeed("analyze", digits_run, "--rank-by", "overall").stderr
    )


def test_a_resumed_sweep_of_old_beside_a_new_one(of_old):
    """The same configurations, two more seeds: no mean is over fewer heads than counted."""
    succeed(*of_old, "--resume")
    new = [word if word != "old/sweep" else "new" for word in of_old]
    succeed(*new, "--seed", 2, "--rank-by", "overall")
    said = succeed("analyze", "old/sweep", "new").stderr
    assert "lacks test_balanced_accuracy, val_balanced_accuracy, left out for all" in said
    ranking, results = pd.read_csv("report/ranking.csv"), pd.read_csv("report/results.csv")
    assert ranking["n"].tolist() == [4, 4]
    assert not [name for name in (*ranking, *results) if "balanced" in name]
    assert results["max_norm_every"].tolist() == ["step"] * 8
    for row in ranking.to_dict("records"):
        own = results[results["configuration"] == row["configuration"]]
        assert own["test_overall"].notna().sum() == row["n"]
        assert row["test_overall_mean"] == pytest.approx(own["test_overall"].sum() / row["n"])


def test_whose_head_and_tail_runs_are_told_of(feature_store, digits_run):
    line = "head: the largest classes with 80 % of the training images"
    told = succeed("analyze", digits_run)
    assert line in told.stdout.splitlines()
    assert told.stderr == ""
    succeed("finetune", "--store", feature_store, "--out", "half", *SHORT, "--head-ratio", 0.5)
    told = succeed("analyze", digits_run, "half")
    assert f"{line}, as in {digits_run}" in told.stdout
    assert f"are those of {digits_run} (--head-ratio 0.8) for all runs" in told.stderr
    assert json.loads(Path("report/analysis.json").read_text())["head_ratio"] == 0.8
