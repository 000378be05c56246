"""A contest's folder: interrupted, resumed, replaced, damaged; always of one contest."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed
from made_contest import of_methods, other_row
from made_together import in_processes

from finetune.contest import contest as of_contest
from finetune.contest import field as running
from finetune.contest.contest import contest
from store.errors import Interrupted, UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.usefixtures("few_entries")
def test_an_interrupted_contest_goes_on(contest_config, quiet, monkeypatch):
    """To the same tables; heads that were done are not trained again."""
    contest(replace(contest_config, out="whole"), quiet)
    trained, train = [], running.train_batch

    def interrupted(batch, *rest):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append([one.method for one in batch])
        return train(batch, *rest)

    monkeypatch.setattr(running, "train_batch", interrupted)
    with pytest.raises(Interrupted):
        contest(contest_config, quiet)
    n_done = len(list(Path("c/done").glob("*.json")))
    assert 0 < n_done < 22
    monkeypatch.setattr(running, "train_batch", train)
    contest(replace(contest_config, resume=True), quiet)
    for name in ("standings.csv", "heads.csv"):
        one, two = (pd.read_csv(f"{out}/{name}").drop(columns=["seconds"]) for out in ("c", "whole"))
        pd.testing.assert_frame_equal(one, two)
    assert Path("c/best/head.pt").read_bytes() == Path("whole/best/head.pt").read_bytes()


@pytest.mark.usefixtures("few_entries")
def test_two_processes_do_what_one_does(contest_config, quiet, monkeypatch):
    """Each some heads of every round, by what the round before found; the first one prints."""
    alone = contest(replace(contest_config, out="alone"), quiet)
    options = ["--store", *contest_config.store, "--iterations", 30, "--device", "cpu", "--out", "c"]

    def take_part(rank: int) -> None:
        train, trained = running.train_batch, []
        monkeypatch.setattr(
            running, "train_batch", lambda some, *rest: (trained.extend(some), train(some, *rest))
        )
        Path(f"said-{rank}").write_text(succeed("contest", *options).stdout)
        Path(f"trained-{rank}").write_text(str(len(trained)))

    assert in_processes(2, take_part) == [0, 0]
    assert "c/best" in Path("said-0").read_text()
    assert Path("said-1").read_text() == ""
    numbers = [int(Path(f"trained-{rank}").read_text()) for rank in range(2)]
    assert sum(numbers) == len(alone.heads)
    assert min(numbers) > 3
    for name in ("standings", "heads"):
        found, expected = (pd.read_csv(f"{out}/{name}.csv").drop(columns="seconds") for out in ("c", "alone"))
        pd.testing.assert_frame_equal(found, expected)
    heads = [torch.load(f"{out}/best/head.pt", weights_only=True)["weight"] for out in ("c", "alone")]
    assert torch.equal(*heads)


@pytest.mark.usefixtures("few_entries")
def test_more_methods_and_seeds_add_to_what_is_done(contest_config, quiet, monkeypatch):
    contest(replace(contest_config, methods="crt", seeds=1), quiet)
    trained, train = [], running.train_batch
    monkeypatch.setattr(
        running, "train_batch", lambda batch, *rest: trained.extend(batch) or train(batch, *rest)
    )
    found = contest(replace(contest_config, methods="crt,fsa", seeds=2, resume=True), quiet)
    assert sorted((one.method, one.seed) for one in trained) == [
        ("crt", 1),
        ("crt", 1),
        ("fsa", 0),
        ("fsa", 0),
        ("fsa", 1),
    ]
    assert set(of_methods(found.table)["entry"]) == {"crt", "fsa"}


@pytest.mark.usefixtures("few_entries")
def test_what_a_folder_holds_is_of_one_contest(contest_config, quiet, feature_store, monkeypatch):
    """Another contest's tables, heads and runs are gone before the new one's are there, even if it fails."""
    contest(replace(contest_config, methods="crt", seeds=1), quiet)
    for name in ("best-1", "average", "average-2"):  # as of one store, and of two
        Path("c", name).mkdir()
    Path("c/best.unfinished.pt").touch()
    Path("c/.heads.csv.unfinished-1-a").touch()
    monkeypatch.setattr(running, "train_batch", lambda *_: pytest.fail("stopped"))
    for more in ({"overwrite": True, "iterations": 31}, {"resume": True, "methods": "logit-adjustment"}):
        before = {path.name for path in Path("c/done").iterdir()}
        with pytest.raises(pytest.fail.Exception):
            contest(replace(contest_config, **more), quiet)
        assert {path.name for path in Path("c").iterdir()} <= {"contest.json", "done"}
        left = {path.name for path in Path("c/done").glob("*")}
        assert left == (before if "resume" in more else set())
        marker = Path("c/contest.json")
        marker.write_text(marker.read_text().replace('"iterations": 31', '"iterations": 30'))
    (Path("c") / "best").mkdir()
    Path("c/best/thesis.txt").write_text("mine")
    given = ["contest", "--store", feature_store, "--out", "c", "--device", "cpu", "--iterations", 30]
    refuse(*given, "--resume", says=["holds best, which holds thesis.txt"])


@pytest.mark.usefixtures("few_entries")
def test_interrupted_in_the_winners_run_it_goes_on(contest_config, quiet, monkeypatch):
    run_best = of_contest.finetune

    def interrupted(one, *rest, **more):
        Path(f"{one.out}.unfinished.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(of_contest, "finetune", interrupted)
    with pytest.raises(Interrupted):
        contest(replace(contest_config, methods="crt", seeds=1), quiet)
    monkeypatch.setattr(of_contest, "finetune", run_best)
    contest(replace(contest_config, methods="crt", seeds=1, resume=True), quiet)
    assert sorted(path.name for path in Path("c").iterdir()) == [
        "best",
        "contest.json",
        "done",
        "heads.csv",
        "standings.csv",
    ]


@pytest.mark.usefixtures("few_entries")
def test_a_contest_is_not_resumed_on_another_store(contest_config, quiet, feature_store):
    contest(replace(contest_config, methods="logit-adjustment"), quiet)
    shutil.copytree(feature_store, "other.zarr")
    with other_row("other.zarr"):
        other = replace(contest_config, store=("other.zarr",), methods="logit-adjustment")
        with pytest.raises(UserError, match="a contest on another store"):
            contest(replace(other, resume=True), quiet)
        contest(replace(other, overwrite=True), quiet)
        contest(replace(other, out="fresh"), quiet)
    found, expected = (pd.read_csv(f"{out}/heads.csv").drop(columns="seconds") for out in ("c", "fresh"))
    pd.testing.assert_frame_equal(found, expected)


def test_a_checkpoint_that_is_not_there_is_told_before_the_first_head(feature_store, monkeypatch):
    missing = ["--ckpt", "gone.pt", "--methods", "ncm"]
    refuse("contest", "--store", feature_store, "--device", "cpu", *missing, says=["gone.pt", "is not there"])


@pytest.mark.parametrize("damage", ["{", '{"head": "1"}', "[]", '"right": {"val": "AA=="'])
def test_a_damaged_head_is_told_of(feature_store, damage):
    given = ["contest", "--store", feature_store, "--out", "c", "--device", "cpu", "--methods", "ncm"]
    succeed(*given)
    file = next(Path("c/done").glob("*.json"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | json.loads("{" + damage + "}}")) if "val" in damage else damage)
    for path in Path("c").glob("*.csv"):
        path.unlink()
    shutil.rmtree("c/best")
    refuse(*given, "--resume", says=[f"{file}: damaged", "continue with --resume"])
