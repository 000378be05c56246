"""Names that a file system allows but text files break on: written and read back unchanged."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bad_input import FOLDER, QUICK, TINY, refuse, succeed
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from analysis.csv_files import read_csv, write_csv
from extract.checkpoints.checkpoint import load_checkpoint
from extract.sources.folders import list_folder
from extract.sources.registry import SOURCES
from finetune.run import read_run
from store.arrays.image_names import image_names
from store.reader import FeatureStore

pytestmark = [pytest.mark.figures, pytest.mark.usefixtures("in_tmp_path")]
NFC, NFD = unicodedata.normalize("NFC", "bête"), unicodedata.normalize("NFD", "bête")
NAMES = [
    "x\r",
    "x",
    "\r",
    "\n",
    "a\nb",
    "a\r\nb",
    ' "',
    'q"uo,te',
    "'",
    " ",
    " lead",
    "trail ",
    "\t",
    "nan",
    "NULL",
]
NAMES += [
    "None",
    "NA",
    "007",
    "1e5",
    "True",
    "inf",
    "\ufeffbom",
    NFC,
    "été",
    "日本",
    "$x$",
    "%s",
    "{0}",
    "=1+1",
]
NAMES += [
    "[bold]red",
    "\x1b[31mred",
    "\\",
    "\\n",
    "a\\",
    "#c",
    ";",
    "\u2028",
    "\x85",
    "\x0b",
    "\x1a",
    "\u200b",
    "\x7f",
]


def write_classes(root: Path, names: list[str]) -> Path:
    """Write two 8×8 training images and a test image per class, named after it as far as file names allow."""
    for i, name in enumerate(names):
        for split, n in (("train", 2), ("test", 1)):
            (root / split / name).mkdir(parents=True)
            for k in range(n):
                Image.new("RGB", (8, 8), (i, 60 * k, 255 - i)).save(root / split / name / f"{name}{k}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Every phase, with one class for each name. Do not modify."""
    made = tmp_path_factory.mktemp("odd")
    root = write_classes(made / "images", NAMES)
    train = ["train", *FOLDER, *TINY, "--image-size", 8, "--root", root, "--out", made / "phase1"]
    succeed(*train, "--batch-size", 64)
    ckpt = made / "phase1/checkpoint.pt"
    for store in ("s.zarr", "s.h5"):
        succeed("extract", "--ckpt", ckpt, "--store", made / store, "--device", "cpu")
    for store in ("s.zarr", "s.h5"):
        run = ["--out", made / f"run_{store}", "--method", "crt", *QUICK]
        succeed("finetune", "--store", made / store, *run)
    return made


def test_checkpoints_stores_and_runs_give_class_names_back(made):
    assert load_checkpoint(made / "phase1/checkpoint.pt").class_names == sorted(NAMES)
    for store in ("s.zarr", "s.h5"):
        assert FeatureStore(made / store).class_names == sorted(NAMES)
        run = read_run(made / f"run_{store}")
        assert run.per_class["class_name"].tolist() == sorted(NAMES)
        for row in run.predictions.itertuples():
            name = sorted(NAMES)[row.label]
            assert row.image == f"test/{name}/{name}0.png"
            assert (made / "images" / row.image).is_file()


def test_they_are_evaluated_and_analyzed(made):
    ckpt = ["--ckpt", made / "run_s.zarr/checkpoint.pt", "--device", "cpu"]
    found = json.loads(succeed("evaluate", *ckpt, "--json").stdout)
    assert [row["class_name"] for row in found["per_class"]] == sorted(NAMES)
    assert found["overall"] == pytest.approx(read_run(made / "run_s.zarr").summary["overall"])
    lines = succeed("evaluate", *ckpt).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines[: len(NAMES)]] == [str(k) for k in range(len(NAMES))]
    printed = succeed("analyze", made / "run_s.zarr", "--out", "report").stdout
    assert {c for c in printed if not c.isprintable()} == {"\n"}
    assert read_csv(Path("report/per_class.csv"))["class_name"].tolist() == sorted(NAMES)
    told = succeed("store", "info", made / "s.zarr").stdout
    assert {c for c in told if not c.isprintable()} == {"\n"}


def test_csv_files_give_back_what_was_written():
    frame = pd.DataFrame(
        {"class_id": range(len(NAMES)), "class_name": NAMES, "accuracy": [0.1, None] * (len(NAMES) // 2)}
    )
    write_csv(frame, Path("odd.csv"))
    pd.testing.assert_frame_equal(read_csv(Path("odd.csv")), frame, check_dtype=False)
    write_csv(frame[2:].iloc[6:8], Path("plain.csv"))
    assert Path("plain.csv").read_text().splitlines()[0] == "class_id,class_name,accuracy"  # unchanged


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1
    )
)
@settings(max_examples=100, deadline=None)
def test_csv_files_give_back_any_text(names):
    frame = pd.DataFrame({"class_name": names, "image": names[::-1], "n": range(len(names))})
    file = Path("any.csv")
    write_csv(frame, file)
    found = read_csv(file)
    assert found["class_name"].tolist() == names
    assert found["image"].tolist() == names[::-1]
    assert found["n"].tolist() == list(range(len(names)))


def test_two_classes_of_one_name_in_two_forms_are_refused(monkeypatch):
    """Listed by a fake, since not every file system distinguishes the forms."""
    root, folders = write_classes(Path("images"), ["ape", "bee"]), SOURCES["imagefolder"]
    two_forms = sorted([NFC, NFD])
    listed = replace(folders, list=lambda *asked: replace(folders.list(*asked), class_names=two_forms))
    monkeypatch.setitem(SOURCES, "imagefolder", listed)
    says = ["the classes 'be\\u0302te' and 'b\\xeate' are the same name in two Unicode forms", "rename one"]
    refuse("train", *FOLDER, *TINY, "--root", root, "--out", "phase1", says=says)


def test_a_class_spelt_in_another_form_in_test_is_the_class_of_train(caplog):
    root = write_classes(Path("images"), ["ape", NFC])
    (root / "test" / NFC).rename(root / "test" / NFD)
    class_names, splits = list_folder(
        root, {split: root / split for split in ("train", "test")}, subfolders=True
    )
    assert class_names == ["ape", NFC]
    assert splits["test"][1] == [0, 1]
    assert [path.parent.name for path in splits["test"][0]] == ["ape", NFD]
    assert "another Unicode form than the class of train" in caplog.text
    (root / "test" / NFC).mkdir()
    refuse(
        "train",
        *FOLDER,
        *TINY,
        "--root",
        root,
        says=["'be\\u0302te'", "'b\\xeate' are the same class", "one folder"],
    )


def respell(root: Path) -> None:
    """Rename as a file system with another form would."""
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


@pytest.mark.parametrize(("other", "alike"), [("zebra", True), ("bf", False)], ids=["in order", "otherwise"])
def test_a_copy_spelt_in_another_form(other, alike):
    """Decomposed, bête sorts before bf; composed, after it."""
    root = write_classes(Path("images"), ["ape", NFC, other])
    succeed("train", *FOLDER, *TINY, "--image-size", 8, "--root", root, "--out", "phase1")
    evaluate = ["evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]
    succeed("extract", *evaluate[1:], "--store", "before.zarr")
    respell(root)
    if alike:
        assert "they count as the same" in succeed(*evaluate).stderr
        succeed("extract", *evaluate[1:], "--store", "s.zarr")
        assert FeatureStore(Path("s.zarr")).class_names == ["ape", NFC, other]
        assert f"test/{NFC}/{NFC}0.png" in image_names(FeatureStore(Path("s.zarr")), "test")
        succeed("store", "verify", "s.zarr", "--sample", 99, *evaluate[1:])
        succeed("extract", *evaluate[1:], "--store", "before.zarr", "--resume")
    else:
        refuse(*evaluate, says=["has names in another Unicode form", "rename them as they were"])
