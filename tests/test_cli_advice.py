"""The command that an interrupted one prints leads to the result of an uninterrupted one."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import FEW_CLASSES, QUICK, TINY, refuse, run, succeed
from made_store import contents

import cli
from cli import main
from finetune.commands.advice import command_line, quoted, resumable, resuming_command
from store.errors import Interrupted

pytestmark = pytest.mark.usefixtures("several_blocks")  # in a folder of its own
ODD = 'it\'s a  "run"\n#1 $HOME/-é'
DEFAULTS = {
    "train": "runs/phase1",
    "extract": "feats.zarr",
    "finetune": "runs/finetune",
    "sweep": "runs/sweep",
}
# When Ctrl-C comes: at the n-th call of a function, or, with ".", at the end of that call.
MOMENTS = {
    "train": [
        ("extract.train.start_training", 1),
        ("extract.train.write_json", 1),
        ("extract.train.learning_rate", 1),
        ("extract.train.learning_rate", 5),
        ("extract.train.predict", 2),
        ("extract.train.save_checkpoint.", 1),
        ("extract.train.save_checkpoint.", 3),
    ],
    "extract": [
        ("extract.dump.restore", 1),
        ("store.writer.StoreWriter._begin.", 1),
        ("store.writer.StoreWriter.write", 1),
        ("store.writer.StoreWriter.write", 6),
        ("store.writer.StoreWriter.finish", 1),
        ("store.drafts.local.LocalDraft.publish", 1),
        ("store.drafts.local.LocalDraft.publish.", 1),
    ],
    "finetune": [
        ("finetune.train.find_phase1", 1),
        ("finetune.training.head_pool.HeadPool.train_on", 1),
        ("finetune.training.head_pool.HeadPool.train_on", 2),
        ("finetune.train.write_run", 1),
        ("finetune.train.write_run.", 1),
        ("finetune.training.resume.UnfinishedRun.remove.", 1),
    ],
    "sweep": [
        ("finetune.sweep.folder.SweepFolder.prepare", 1),
        ("finetune.sweep.folder.write_json.", 1),
        ("finetune.sweep.sweep.train_batch", 1),
        ("finetune.sweep.sweep.train_batch", 2),
        ("finetune.sweep.folder.SweepFolder.finish", 1),
        ("finetune.sweep.folder.SweepFolder.finish.", 1),
    ],
    "convert": [
        ("store.convert._spec", 1),
        ("store.writer.StoreWriter.write", 2),
        ("store.drafts.local.LocalDraft.publish.", 1),
    ],
}


def command(name: str, target: str | None, store: Path, *more: object) -> list[object]:
    """A quick command of each kind; without a target if it has a default."""
    root = store.parent / "images"
    training = ["--dataset", "imagefolder", "--image-size", 16, *TINY, "--epochs", 2, "--eval-every", 1]
    options = {
        "train": [*training, "--root", root],
        "extract": [
            "--ckpt",
            store.parent / "phase1" / "checkpoint.pt",
            "--device",
            "cpu",
            "--batch-size",
            4,
        ],
        "finetune": ["--store", store, *QUICK, *FEW_CLASSES, "--iterations", 9, "--window", 3],
        "sweep": [
            *("--store", store, "--iterations", 2, "--device", "cpu", *FEW_CLASSES, "--select-on", "test"),
            *("--seeds", 2, "--grid", "tau_s=0.5,0.7", "--grid", "lr=0.001,0.01"),
        ],
        "convert": ["--dtype", "bfloat16"],
    }[name]
    if name == "convert":
        return ["store", "convert", *options, *more, "--", store, target]
    place = "--store" if name == "extract" else "--out"
    return [name, *options, *([] if target is None else [f"{place}={target}"]), *more]


def outcome(name: str, target: str) -> Any:
    """What must be the same, interrupted or not."""
    if name in ("extract", "convert"):  # except attributes, which record where and how
        asked = ("zarr.json", "checksum/metadata")
        return {
            file: content for file, content in contents(Path(target)).items() if not file.startswith(asked)
        }
    if name == "finetune":
        return {n: Path(target, n).read_bytes() for n in ("head.pt", "metrics.csv", "predictions.csv")}
    if name == "sweep":
        return [
            pd.read_csv(Path(target, n)).filter(regex="^(?!seconds)").to_csv()
            for n in ("results.csv", "ranking.csv")
        ]
    checkpoint = torch.load(Path(target, "checkpoint.pt"), weights_only=True)
    history = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in checkpoint["history"]]
    weights = {name: tensor.numpy().tobytes() for name, tensor in checkpoint["state"].items()}
    return history, weights, checkpoint["optimizer"], sorted(p.name for p in Path(target).iterdir())


def interrupted(arguments: list[object], where: str, n: int) -> str:
    """Run a command until Ctrl-C comes; returns its message."""
    path, after = where.rstrip("."), where.endswith(".")
    calls, original = itertools.count(1), _found(path)

    def until(*args: object, **how: object) -> object:
        now = next(calls) == n
        if now and not after:
            raise KeyboardInterrupt
        made = original(*args, **how)
        if now:
            raise KeyboardInterrupt
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path, until)
        result = run(*arguments)
    assert result.exit_code == 130, (result.output, result.exception)
    lines = [line for line in result.stderr.strip().splitlines() if ": note: " not in line]
    assert len(lines) == 1, result.stderr
    return lines[0]


def _found(path: str) -> Any:
    names = path.split(".")
    module = ".".join(names[:2])
    return reduce(getattr, names[2:], __import__(module, fromlist=["_"]))


def words(line: str) -> list[str]:
    """The words of a line, split by a shell."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def cases() -> Iterator[Any]:
    for name, moments in MOMENTS.items():
        for i, (where, n) in enumerate(moments):
            overwrite = i % 2 == 0
            default = name in DEFAULTS and i % 3 == 1
            marks = f"{name}-{where}-{n}{'-overwrite' * overwrite}{'-default' * default}"
            yield pytest.param(name, where, n, overwrite, default, id=marks)


@pytest.fixture(scope="module")
def expected() -> dict[tuple, Any]:
    """Outcomes of commands that were not interrupted."""
    return {}


@pytest.mark.parametrize(("name", "where", "n", "overwrite", "default"), list(cases()))
def test_the_advice_leads_to_what_would_have_been(
    name: str, where: str, n: int, overwrite: bool, default: bool, small_store: Path, expected: dict
) -> None:
    target = DEFAULTS[name] if default else ODD + {"extract": ".zarr", "convert": ".zarr"}.get(name, "")
    asked = command(name, None if default else target, small_store, *["--overwrite"] * overwrite)
    key = (name, overwrite, default)
    if key not in expected:
        Path("expected").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir("expected")
            succeed(*asked)
            expected[key] = outcome(name, target)
        shutil.rmtree("expected")
    if overwrite:
        earlier = {"train": ["--seed", 1], "finetune": ["--lr", 0.5], "sweep": ["--momentum", 0.5]}
        succeed(*command(name, None if default else target, small_store, *earlier.get(name, [])))
    said = interrupted(asked, where, n)
    advised = words(said.partition(" with: ")[2])
    assert advised[0] == "main", said
    succeed(*advised[1:])
    assert outcome(name, target) == expected[key]
    left = {path.name for path in Path().rglob("*") if "unfinished" in path.name or "lock" in path.name}
    assert not left


def test_a_word_is_one_line_and_means_itself() -> None:
    generator = np.random.default_rng(0)
    texts = [
        "".join(map(chr, generator.choice([*range(1, 128), 0xE9, 0x2028, 0x85, 0xDCFF, 0x1F600], 12)))
        for _ in range(50)
    ]
    line = " ".join(map(quoted, texts))
    assert len(line.splitlines()) == 1
    assert words(line) == texts


def test_a_command_is_said_with_all_that_was_given() -> None:
    asked = ["--ckpt=-c.pt", "--store", "a  b.zarr", "--views", "3", "--overwrite"]
    extract = main.commands["extract"].make_context("extract", list(asked))
    named = {name: extract.params[name] for name in ("overwrite", "views", "store", "ckpt")}
    said = words(command_line(extract, named))
    again = main.commands["extract"].make_context("extract", said[said.index("extract") + 1 :])
    assert again.params == extract.params


def test_a_sweep_that_was_begun_is_not_thrown_away_unasked(small_store: Path) -> None:
    asked = command("sweep", "out", small_store)
    interrupted(asked, "finetune.sweep.sweep.train_batch", 2)
    says = ["2 of its 8 heads done", "pass --resume to continue it, or --overwrite to delete them"]
    refuse(*asked, says=says)
    refuse(*asked, "--momentum", 0.5, says=["out: holds another sweep with 2 heads done", "another"])


def test_a_run_that_was_to_replace_another_is_not_thrown_away_unasked(small_store: Path) -> None:
    asked = command("finetune", "out", small_store)
    succeed(*asked)
    interrupted([*asked, "--overwrite", "--seed", 1], "finetune.training.head_pool.HeadPool.train_on", 2)
    refuse(
        *asked, "--seed", 1, says=["out.unfinished.pt: an interrupted run", "pass --resume to continue it"]
    )


def test_a_store_that_was_to_replace_another_is_not_thrown_away_unasked(small_store: Path) -> None:
    asked = command("extract", "s.zarr", small_store)
    succeed(*asked)
    interrupted([*asked, "--overwrite"], "store.writer.StoreWriter.write", 6)
    refuse(*asked, says=["s.zarr.unfinished: is an unfinished store; pass --resume to continue"])


@pytest.mark.parametrize("moment", [("extract.train._save", 1), ("extract.train.learning_rate", 2)])
def test_a_resume_that_is_interrupted_before_it_keeps_what_it_was_given(
    moment: tuple[str, int], small_store: Path
) -> None:
    """With a moved root: the checkpoint still has the old one."""
    old, new = Path("old").resolve(), Path("new").resolve()
    shutil.copytree(small_store.parent / "images", old)
    interrupted([*command("train", "r", small_store), "--root", old], "extract.train.learning_rate", 5)
    old.rename(new)
    again = ["train", "--out", "r", "--resume", "--root", new, "--workers", 0]
    said = interrupted(again, *moment)
    succeed(*words(said.partition(" with: ")[2])[1:])
    assert torch.load("r/checkpoint.pt", weights_only=True)["dataset"]["root"] == str(new)


def test_a_network_of_the_users_own_does_not_shorten_the_advice():
    command = main.commands["extract"]
    asked = ["--arch", "my_nets:make", "--root", "photos", "--classifier", "fit"]
    context = command.make_context("extract", asked, parent=click.Context(main, info_name="tailcache"))
    told = resuming_command(context, ())
    assert all(
        words in told for words in ("--arch my_nets:make", "--root photos", "--classifier fit", "--resume")
    )


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_under_torchrun_the_first_process_says_that_torchrun_resumes(error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cli.py"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    program = click.Context(cli.main, info_name="cli.py")
    context = cli.train.make_context("train", ["--out", "r"], parent=program)
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit, match="130"), resumable(context, "out"):
            raise error
        said = capsys.readouterr().err
        again = " --resume" if error is Interrupted else ""
        assert said == "" if rank else said.endswith(f" with: torchrun … cli.py train --out r{again}\n")
