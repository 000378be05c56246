"""`train --check-data`: every kind of fault is counted, in every kind of source, and nothing is written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_input import TINY, refuse, run, snapshot, write_images

import tailcache as tc
from extract.audit.copies import find_copies
from extract.audit.report import NO_IMAGES, OF_COPIES, OF_FILES, check_data
from extract.config import DatasetConfig

pytestmark = pytest.mark.usefixtures("in_tmp_path")
PER_CLASS = {"ape": 4, "bee": 3, "cat": 3}


@pytest.fixture
def photos(in_tmp_path: Path) -> Path:
    return write_images(Path("photos"), PER_CLASS, ["train", "val", "test"])


def check(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a check that writes nothing."""
    before = snapshot(Path())
    result = run("train", *arguments, "--check-data")
    assert snapshot(Path()) == before
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, result.stdout


def found(quiet, **options: object) -> dict[str, dict[str, int]]:
    """The counts that are not 0."""
    report = check_data(DatasetConfig(**options), quiet)
    counts = {f.kind: {split: n for split, n in f.counts.items() if n} for f in report.faults}
    assert list(counts) == [NO_IMAGES, *OF_FILES.values(), *OF_COPIES.values()]
    assert report.is_sound == (not any(counts.values()))
    return {kind: of_split for kind, of_split in counts.items() if of_split}


def test_a_sound_data_set_is_sound(photos, quiet):
    code, said = check("--root", photos)
    assert code == 0
    assert said.splitlines()[1].split() == ["images", "10", "10", "10"]
    assert said.splitlines()[-1] == f"{photos.resolve()}: 30 images of 3 classes, no fault found"
    assert not found(quiet, root="photos")


def test_every_kind_of_fault_is_counted_and_named(photos, quiet):
    (photos / "train/ape/0.png").write_bytes(b"")
    whole = (photos / "train/ape/1.png").read_bytes()
    (photos / "train/ape/1.png").write_bytes(whole[:-40])
    (photos / "test/cat/0.png").write_text("no image")
    shutil.rmtree(photos / "val/cat")
    shutil.copy(photos / "train/bee/0.png", photos / "test/bee/copy.png")
    for copy in ("train/bee/copy.png", "train/cat/copy.png"):
        shutil.copy(photos / "train/bee/1.png", photos / copy)
    assert found(quiet, root="photos") == {
        "classes without images": {"val": 1},
        "empty files": {"train": 1},
        "unreadable": {"train": 1, "test": 1},
        "copies of an earlier image of the split": {"train": 2},
        "same content in another split": {"train": 1, "test": 1},
        "same content in another class": {"train": 3},
    }
    code, said = check("--root", photos)
    assert code == 1
    lines = said.splitlines()
    assert "  cat (val)" in lines
    assert "  train/ape/0.png" in lines
    assert "  train/bee/0.png (train, bee) = test/bee/copy.png (test, bee)" in lines
    of_classes = lines[lines.index("same content in another class:") + 1]
    assert of_classes.strip().split(" = ") == [
        "train/bee/1.png (train, bee)",
        "train/bee/copy.png (train, bee)",
        "train/cat/copy.png (train, cat)",
    ]
    assert len([line for line in lines if "not a readable image" in line and "--skip" not in line]) == 2
    # Two empty and broken files with the same bytes are no copies of each other.
    assert lines[-1].endswith("8 of 30 images have a fault; no images of a class in a split: 1 time")


def test_a_broken_link_in_a_class_folder_is_a_missing_image(photos, quiet):
    (photos / "train/ape/x.png").symlink_to("nowhere.png")
    (photos / "test/bee/sub").mkdir()
    (photos / "test/bee/sub/y.png").symlink_to(photos / "gone/y.png")
    (photos / "test/bee/.hidden").symlink_to("nowhere")
    assert found(quiet, root="photos") == {"missing": {"train": 1, "test": 1}}
    code, said = check("--root", photos)
    assert code == 1
    assert "  test/bee/sub/y.png (a broken link)" in said.splitlines()
    assert said.splitlines()[-1].endswith("2 of 32 images have a fault")


def test_missing_images_of_a_table_are_counted_and_not_only_the_first_named(photos, quiet):
    rows = [(path, path.parts[-2], path.parts[-3]) for path in sorted(photos.rglob("*.png"))]
    lines = ["path,label,split", *(f"{path.relative_to(photos)},{k},{split}" for path, k, split in rows)]
    Path("photos/t.csv").write_text("\n".join(lines) + "\n")
    table = ["--train", "photos/t.csv"]
    assert check(*table)[0] == 0
    for name in (
        "train/ape/0.png",
        "train/bee/1.png",
        "test/cat/2.png",
        "train/ape/3.png",
        "train/cat/0.png",
    ):
        (photos / name).unlink()
    assert found(quiet, train="photos/t.csv") == {"missing": {"train": 4, "test": 1}}
    code, said = check(*table)
    assert code == 1
    shown = said.splitlines()
    at = shown.index("missing:")
    assert shown[at + 1 : at + 5] == [
        "  test/cat/2.png",
        "  train/ape/0.png",
        "  train/ape/3.png",
        "  and 2 more",
    ]
    refuse(
        "train", *table, *TINY, "--image-size", 16, says=["test/cat/2.png is not there; 4 more are missing"]
    )
    Path("photos/t.csv").write_text("\n".join([*lines, "train/ape/1.png,bee,train"]))
    refuse("train", *table, "--check-data", says=["line 32: train/ape/1.png has two labels"])


def test_splits_that_are_drawn_are_checked_as_they_are_drawn(in_tmp_path, quiet):
    write_images(Path(), {"ape": 20, "bee": 20}, ["photos"])
    for path in sorted(Path("photos/ape").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    counts = found(quiet, root="photos", test_fraction=0.3)
    n_test = counts["same content in another split"]["test"]
    assert counts["same content in another split"] == {"train": n_test, "test": n_test}
    n_apart = 20 - n_test
    assert sum(counts["copies of an earlier image of the split"].values()) == n_apart > 0 < n_test


def test_counts_from_python_are_those_on_the_screen(photos):
    shutil.copy(photos / "train/bee/0.png", photos / "test/bee/copy.png")
    frame = tc.check_data(photos)
    assert list(frame.columns) == ["train", "val", "test", "examples"]
    assert frame.loc["same content in another split"].tolist() == [
        1,
        0,
        1,
        ["train/bee/0.png (train, bee) = test/bee/copy.png (test, bee)"],
    ]
    assert frame[["train", "val", "test"]].to_numpy().sum() == 2
    with pytest.raises(tc.UserError, match=r"none: no such folder"):
        tc.check_data("none")
    with pytest.raises(tc.UserError, match=r"check_data: no option epochs"):
        tc.check_data(photos, epochs=3)


def test_images_in_memory_are_checked_too(quiet):
    code, said = check()
    assert code == 0
    assert "digits: 1,797 images of 10 classes, no fault found" in said


def test_what_cannot_be_listed_has_another_exit_code(photos):
    refuse("train", "--root", "none", "--check-data", says=["none: no such folder"])
    refuse("train", "--root", photos, "--resume", "--check-data", says=["without --resume or --ckpt"])
    refuse("train", "--root", photos, "--download", "--check-data", says=["--download: there is nothing"])
    shutil.rmtree(photos / "train/ape")
    refuse(
        "train", "--root", photos, "--check-data", says=["class 'ape' is not among the 2 classes of train"]
    )


def test_extract_checks_the_images_of_another_programs_network(photos):
    options = ["--arch", "resnet18", "--root", photos, "--store", "x.zarr", "--check-data"]
    for code, said in ((0, "30 images of 3 classes, no fault found"), (1, "1 of 30 images have a fault")):
        result = run("extract", "--ckpt", "other.pth", *options)
        assert result.exit_code == code
        assert said in result.stdout
        (photos / "test/cat/0.png").write_bytes(b"")
    says = ["a checkpoint of `train` has its data set already"]
    refuse("extract", "--ckpt", "phase1/checkpoint.pt", "--check-data", says=says)


def test_a_finished_run_in_the_folder_does_not_matter(photos, monkeypatch):
    Path("runs/phase1").mkdir(parents=True)
    Path("runs/phase1/head.pt").write_bytes(b"of another run")
    assert check("--root", photos)[0] == 0


def test_copies_are_those_that_comparing_every_pair_finds():
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 40, 41, 42):
        contents = rng.integers(0, 256, (25, 16), np.uint8)
        contents[1:9, :15] = contents[0, :15]  # differ in their last byte alone
        digest = contents[rng.integers(0, 25, n)]
        label, split = rng.integers(0, 3, n), rng.integers(0, 3, n)
        copies = find_copies(digest, label, split)
        same = (digest[:, None] == digest[None]).all(axis=2)
        within = split[:, None] == split[None]
        np.testing.assert_array_equal(copies.in_two_splits, (same & ~within).any(axis=1))
        np.testing.assert_array_equal(
            copies.in_two_classes, (same & (label[:, None] != label[None])).any(axis=1)
        )
        np.testing.assert_array_equal(copies.repeated, np.tril(same & within, -1).any(axis=1))
        groups = copies.groups(copies.in_two_splits)
        assert (
            sorted(np.concatenate([*groups, np.empty(0, int)]))
            == np.flatnonzero((same & copies.in_two_splits[None]).any(axis=1)).tolist()
        )
        assert all((digest[group] == digest[group[0]]).all() for group in groups)
        assert len({digest[group[0]].tobytes() for group in groups}) == len(groups)


def test_broken_links_with_other_names_than_images_do_not_count(photos, quiet):
    for name in ("gone.png", "gone", "gone.txt", "gone.JPG", "gone.webp", ".gone.png", "Thumbs.db"):
        (photos / "test/ape" / name).symlink_to("nowhere")
    assert found(quiet, root="photos") == {"missing": {"test": 4}}
