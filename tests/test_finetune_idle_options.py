"""Notes about options that change nothing; one head for methods that do not depend on the seed."""

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bad_input import QUICK, succeed

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def idle(*command: object) -> dict[str, str]:
    """Options that a command notes as changing nothing, each with the reason."""
    lines = [line for line in succeed(*command).stderr.splitlines() if " changes nothing" in line]
    parts = [line.removeprefix("tailcache: note: --").partition(" changes nothing") for line in lines]
    assert len({name for name, _, _ in parts}) == len(parts)
    return {name: what for name, _, what in parts}


def test_a_seed_changes_nothing_where_nothing_is_drawn(feature_store):
    command = ["finetune", "--store", feature_store, "--device", "cpu", "--overwrite"]
    for method in ("tau-norm", "ncm", "logit-adjustment"):
        assert idle(*command, "--method", method, "--seed", 3) == {"seed": f" for {method}"}
        assert idle(*command, "--method", method) == {}
    heads = []
    for seed in (0, 3):
        succeed(*command, "--method", "ncm", "--seed", seed)
        heads.append(Path("runs/finetune/head.pt").read_bytes())
    assert heads[0] == heads[1]
    assert idle(*command, *QUICK, "--method", "plain", "--seed", 3) == {}


def test_what_a_method_does_not_use_is_said(feature_store):
    command = ["finetune", "--store", feature_store, "--device", "cpu", "--overwrite"]
    ways = ["--residency", "host", "--memory", 1, "--window", 8, "--prefetch", 1]
    assert idle(*command, "--iterations", 2, "--method", "fsa", *ways, "--eval-every", 1) == {}
    lws = idle(*command, "--iterations", 2, "--method", "lws", *ways, "--eval-every", 1)
    assert lws == dict.fromkeys(("memory", "residency"), " for lws with loss ce")
    ncm = idle(*command, "--method", "ncm", *ways, "--eval-every", 1, "--tail-samples", 4, "--lr", 0.1)
    assert ncm.keys() == {"memory", "residency", "window", "prefetch", "eval-every", "tail-samples", "lr"}


def test_the_split_of_head_and_tail_is_told_of_every_run(feature_store):
    """The summary of every run depends on it, whatever its head depends on."""
    command = ["finetune", "--store", feature_store, *QUICK, "--method", "plain", "--overwrite"]
    told = []
    for ratio in (0.3, 0.8):
        assert idle(*command, "--head-ratio", ratio) == {}
        told.append(json.loads(Path("runs/finetune/summary.json").read_text())["n_classes"]["head"])
    assert told[0] < told[1]


@pytest.mark.parametrize("method", ["ncm", "lws", "no-aug"])
def test_the_command_of_a_winner_has_no_idle_option(feature_store, phase1, method):
    ways = ["--seed", 3, "--seeds", 1, "--residency", "host", "--memory", 1, "--window", 8, "--prefetch", 1]
    rest = ["--cache", "kept", "--cache-gib", 2, "--head-ratio", 0.7, "--ckpt", phase1, "--iterations", 2]
    command = ["--store", feature_store, "--device", "cpu", "--method", method, *ways, *rest, "--tau-s", 0.5]
    swept = succeed("sweep", *command)
    assert "--ckpt changes nothing" not in swept.stderr
    line = shlex.split(swept.stdout.splitlines()[-1])
    assert ("--seed" in line, "--window" in line) == (method != "ncm",) * 2
    assert line[line.index("--ckpt") + 1] == str(phase1)
    assert succeed(*line[1:]).stderr == ""


def test_what_makes_the_size_of_a_batch_is_no_idle_option(feature_store):
    command = ["finetune", "--store", feature_store, *QUICK, "--overwrite"]
    assert idle(*command, "--method", "no-aug", "--augmented-per-sample", 4) == {}
    assert json.loads(Path("runs/finetune/config.json").read_text())["batch_size"] == 120
    assert idle(*command, "--method", "plain", "--tail-samples", 2, "--augmented-per-sample", 1) == {}
    assert json.loads(Path("runs/finetune/config.json").read_text())["batch_size"] == 8
    assert idle(*command, "--method", "plain", "--augmented-per-sample", 1).keys() == {"augmented-per-sample"}


def test_a_cache_of_a_local_store_is_said_to_be_none(feature_store):
    command = ["finetune", "--store", feature_store, "--method", "ncm", "--device", "cpu", "--overwrite"]
    found = idle(*command, "--cache", "kept", "--cache-gib", 1)
    assert found.keys() == {"cache", "cache-gib"}
    assert all("an s3:// store" in what for what in found.values())


def test_a_sweep_makes_what_draws_nothing_once(feature_store):
    command = ["sweep", "--store", feature_store, "--device", "cpu", "--iterations", 2, "--overwrite"]
    result = succeed(*command, "--grid", "method=plain,ncm,tau-norm", "--seed", 5, "--seeds", 2)
    rows = pd.read_csv("runs/sweep/results.csv")
    assert rows.groupby("method")["seed"].apply(list).to_dict() == {
        "ncm": [5],
        "plain": [5, 6],
        "tau-norm": [5],
    }
    notes = [line for line in result.stderr.splitlines() if "does not depend on the seed" in line]
    assert [line.split(": ")[2].split(" does")[0] for line in notes] == ["ncm", "tau-norm"]
    assert "changes nothing" not in result.stderr
    ranking = pd.read_csv("runs/sweep/ranking.csv").set_index("configuration")
    assert ranking["n"].to_dict() == {"plain": 2, "ncm": 1, "tau-norm": 1}
    assert ranking["test_overall_std"].isna().to_dict() == {"plain": False, "ncm": True, "tau-norm": True}


def test_a_sweep_says_which_options_change_no_head(feature_store):
    command = ["sweep", "--store", feature_store, "--device", "cpu", "--iterations", 2, "--overwrite"]
    more = ["--tau", 2, "--beta", 0.9, "--eval-every", 1, "--tensorboard", "--ckpt", "x", "--heads"]
    found = idle(*command, "--grid", "method=plain,tau-norm", "--seeds", 2, *more)
    assert found.keys() == {"beta", "eval-every", "tensorboard"}
    assert found["beta"] == " for plain with loss ce, tau-norm"
    found = idle(*command, "--method", "ncm", "--seed", 1, "--seeds", 2, "--tail-samples", 4)
    assert found == dict.fromkeys(("iterations", "seed", "seeds", "tail-samples"), " for ncm")
    found = idle(*command, "--method", "plain", "--keep", "best", "--eval-every", 1, "--seeds", 1)
    assert found == {}


def test_analyze_says_where_seeds_are_no_seeds(feature_store):
    command = ["finetune", "--store", feature_store, *QUICK]
    for method in ("ncm", "plain"):
        for seed in (0, 1):
            succeed(*command, "--method", method, "--seed", seed, "--out", f"{method}-{seed}")
    said = succeed("analyze", "ncm-0", "ncm-1", "plain-0", "plain-1").stderr
    same = "its 2 runs on one Phase I are the same; ignore their ±"
    assert said.splitlines() == [f"tailcache: note: ncm: does not depend on the seed, so {same}"]
    shutil.rmtree("ncm-1")
    assert "does not depend on" not in succeed("analyze", "ncm-0", "plain-0", "plain-1").stderr


def test_verify_says_what_a_sample_alone_needs(feature_store):
    assert idle("store", "verify", feature_store, "--seed", 1, "--device", "cpu").keys() == {"seed", "device"}
