"""Runs whose files have the same names: seeds of one configuration only if the images are the same too."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bad_input import refuse, succeed

MADE = Path(__file__).parent / "data" / "program_0_1"
FEW = ["--device", "cpu", "--iterations", 4, "--eval-every", 4, "--batch-size", 16]
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def run_of(images: Path, name: str, seed: int) -> str:
    """A run from images with version 0.1's checkpoint, which knows them by name only."""
    ckpt = MADE / "phase1/checkpoint.pt"
    extract = ["--ckpt", ckpt, "--root", images, "--store", f"{name}.zarr", "--device", "cpu"]
    succeed("extract", *extract)
    succeed("finetune", "--store", f"{name}.zarr", "--out", name, "--seed", seed, *FEW, "--ckpt", ckpt)
    return name


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A run of the original images, and one for each split in which two classes' images were swapped."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(MADE / "images", "images")
        run_of(Path("images"), "own", 0)
        for split in ("train", "val", "test"):
            shutil.copytree("images", f"of_{split}")
            a, b = (Path(f"of_{split}", split, name) for name in ("ape", "cat with spaces"))
            for path in b.glob("*.png"):  # as many as in the smaller class
                path.rename("other")
                (a / path.name).rename(path)
                Path("other").rename(a / path.name)
            run_of(Path(f"of_{split}"), f"other_{split}", 1)
    return folder


def without_identity(run: Path, name: str, seed: int) -> str:
    """A copy in the form that version 0.1 would have written."""
    shutil.copytree(run, name)
    return changed(name, lambda provenance: provenance.pop("identity"), seed)


def changed(name: str, change: Any, seed: int) -> str:
    config = json.loads(Path(name, "config.json").read_text())
    change(config["provenance"])
    Path(name, "config.json").write_text(json.dumps(config | {"seed": seed}))
    return name


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_that_changed_places_are_other_images(both, split):
    """The checkpoint knows only names; labels and all counts are the same."""
    line = refuse("analyze", both / "own", both / f"other_{split}", says=["analyze them separately"])
    assert str(both / "own") in line
    assert str(both / f"other_{split}") in line
    assert f"hold other images in the {split} split" in line


def test_the_same_images_by_any_network_are_the_same(both):
    """Features of another network or processor do not mean other images."""
    shutil.copytree(both / "own", "second")

    def by_another(provenance: dict) -> None:
        provenance["identity"]["digests"] = dict.fromkeys(provenance["identity"]["digests"], "0" * 32)

    changed("second", by_another, 1)
    assert succeed("analyze", both / "own", "second").stderr == ""
    table = pd.read_csv("report/summary.csv")
    assert table["n"].tolist() == [1, 2]


def test_splits_of_a_store_without_digests_are_compared_as_one_network_saw_them(both):
    for name, source, seed in (("first", "own", 0), ("second", "own", 1), ("third", "other_val", 2)):
        shutil.copytree(both / source, name)
        changed(name, lambda provenance: provenance["identity"].update(images={}), seed)
    assert succeed("analyze", "first", "second").stderr == ""  # of one store
    refuse("analyze", "first", "third", says=["hold other images in the val split"])


def test_runs_that_know_images_by_name_are_compared_by_the_predictions_of_phase_1(both):
    old = without_identity(both / "own", "old", 1)
    (line,) = succeed("analyze", both / "own", old).stderr.splitlines()
    assert f"note: {Path('old').resolve()}: its store records names of images but no digests" in line
    assert "(1 of 2 runs)" in line
    path = Path(old, "predictions.csv")
    table = pd.read_csv(path)
    for n, is_other in ((1, False), (2, True)):  # of 12: one may be rounding
        table["phase1"] = np.where(
            np.arange(len(table)) < n, 0, pd.read_csv(both / "own/predictions.csv").phase1
        )
        table.to_csv(path, index=False)
        if not is_other:
            succeed("analyze", both / "own", old)
            continue
        old, own = Path("old").resolve(), both / "own"
        says = [f"{old}: its Phase I predictions differ from those in {own} for 2 of 12"]
        refuse("analyze", both / "own", old, "--out", "elsewhere", says=says)


def test_runs_of_version_0_1_are_taken_with_a_note():
    (line,) = succeed("analyze", MADE / "run_fsa", MADE / "run_ncm").stderr.splitlines()
    assert "files of the same names are assumed to be the same images" in line
    assert "(2 of 2 runs)" in line
    assert succeed("analyze", MADE / "run_fsa").stderr == ""  # nothing to compare it with


def test_a_run_whose_identity_is_no_digests_is_damaged(both):
    shutil.copytree(both / "own", "broken")
    changed("broken", lambda provenance: provenance.update(identity={"digests": 3, "images": {}}), 1)
    refuse("analyze", both / "own", "broken", says=["identity lacks digests by split"])
