"""Folders that a command may not replace, because they hold foreign files."""

import shutil
from pathlib import Path

import pytest
from bad_input import QUICK, refuse, succeed

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_finetune_out_that_exists(feature_store: Path, digits_run: Path) -> None:
    shutil.copytree(digits_run, "fsa")
    command = ["finetune", "--store", feature_store, "--out", "fsa", *QUICK]
    refuse(*command, says=["fsa: already exists", "--overwrite", "or name another"])
    succeed(*command, "--overwrite")


def test_overwrite_spares_what_else_lies_in_a_run(feature_store: Path, digits_run: Path) -> None:
    shutil.copytree(digits_run, "fsa")
    Path("fsa/thesis.txt").write_text("three years of work")
    command = ["finetune", "--store", feature_store, "--out", "fsa", *QUICK, "--overwrite"]
    refuse(
        *command,
        says=[
            "fsa: already exists and is not a run that may be replaced",
            "holds thesis.txt",
            "name another",
        ],
    )
    Path("fsa/thesis.txt").unlink()
    shutil.copytree(feature_store, "fsa/feats.zarr")
    command[2] = "fsa/feats.zarr"
    refuse(*command, says=["holds feats.zarr"])


def test_files_named_as_a_runs_are_no_run(feature_store: Path) -> None:
    Path("fsa").mkdir()
    for name in ("head.pt", "config.json"):
        Path("fsa", name).write_text('"three years of work"')
    command = ["finetune", "--store", feature_store, "--out", "fsa", *QUICK, "--overwrite"]
    refuse(*command, says=["fsa: already exists and is not a run that may be replaced", "holds config.json"])


@pytest.mark.parametrize("command", ["extract", "finetune"])
def test_overwrite_replaces_nothing_but_its_own_kind(
    command: str, small_ckpt: Path, feature_store: Path
) -> None:
    path = Path("papers.zarr")
    path.mkdir()
    (path / "thesis.txt").write_text("three years of work")
    commands = {
        "extract": ["--ckpt", small_ckpt, "--store", path, "--device", "cpu"],
        "finetune": ["--store", feature_store, "--out", path, *QUICK],
    }
    says = ["papers.zarr: already exists and is no", "holds thesis.txt", "name another"]
    refuse(command, *commands[command], "--overwrite", says=says)
