"""Which files of a class folder are images, their order, and the notes about the others."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_input import FOLDER, TINY, run, succeed
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.images.image_set import read_image
from extract.sources.folders import KNOWN, list_folder
from extract.sources.imagefolder import list_image_folder
from store.errors import UserError

PROGRAM_0_1 = Path(__file__).parent / "data" / "program_0_1"


def save(path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with two images in train and one in test, nothing odd."""
    root = tmp_path / "photos"
    for name in ("train/ape/a.png", "train/ape/c.png", "train/bee/a.png", "train/bee/b.png"):
        save(root / name)
    for name in ("test/ape/a.png", "test/bee/a.png"):
        save(root / name)
    return root


def listed(root: Path, split: str = "train") -> list[str]:
    return [
        p.relative_to(root / split).as_posix()
        for p in list_image_folder(root, DatasetConfig()).splits[split].images
    ]


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_known_extensions_are_torchvision_s():
    assert KNOWN == IMG_EXTENSIONS


def test_images_in_subfolders_count_as_torchvision_counts_them(root, caplog):
    for name in ("b/1.png", "b/c/2.png", "b-2/3.jpg", "b.d/4.png", "a.png.d/5.png", "aa/6.PNG"):
        save(root / "train/ape" / name)
    save(root.parent / "elsewhere/7.png")
    (root / "train/bee/link").symlink_to(root.parent / "elsewhere")
    train = list_image_folder(root, DatasetConfig()).splits["train"]
    theirs = ImageFolder(str(root / "train"))
    assert {str(p) for p in train.images} == {path for path, _ in theirs.samples}
    assert np.bincount(train.label).tolist() == np.bincount(theirs.targets).tolist() == [8, 3]
    assert train.sample_index.tolist() == list(range(11))
    names = ["a.png", "a.png.d/5.png", "aa/6.PNG", "b-2/3.jpg", "b.d/4.png", "b/1.png", "b/c/2.png", "c.png"]
    assert listed(root)[:8] == [f"ape/{name}" for name in names]
    assert notes(caplog) == []


def test_a_flat_folder_is_listed_as_version_0_1_did(root):
    for name in ("Z.png", "_.jpg", "ä.webp", "10.png", "9.bmp", "a b.tiff", "a-b.ppm", "ä.png"):
        save(root / "train/ape" / name)
    folder = root / "train/ape"
    folders = {split: root / split for split in ("train", "test")}
    assert list_folder(root, folders, True) == list_folder(root, folders, False)
    assert list_image_folder(root, DatasetConfig()).splits["train"].images[:10] == sorted(folder.iterdir())


def test_the_content_decides_where_the_name_does_not(root, caplog):
    folder = root / "train/ape"
    save(folder / "photo.jfif", format="JPEG")
    save(folder / "no extension", format="PNG")
    save(folder / "b.txt", format="BMP")
    frames = [Image.new("P", (8, 8), color) for color in (1, 2)]
    frames[0].save(folder / "moving.GIF", save_all=True, append_images=frames[1:])
    assert listed(root)[:6] == [f"ape/{n}" for n in sorted(os.listdir(folder))]
    assert np.array_equal(read_image(folder / "moving.GIF").permute(1, 2, 0), frames[0].convert("RGB"))
    assert notes(caplog) == []


def test_what_is_passed_over_is_counted_by_reason_in_one_line(root, caplog):
    ape = root / "train/ape"
    (ape / "notes.txt").write_text("P1 is no bitmap here.\n")
    (ape / "Thumbs.db").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    (ape / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    (root / "test/README").write_text("no class")
    (ape / "nothing").touch()
    (ape / "features.h5").touch()  # Pillow recognises it, but cannot decode it
    (ape / "gone.png").symlink_to(ape / "moved.png")
    (ape / "round.png").symlink_to(ape / "round.png")
    (ape / "sub").mkdir()
    (ape / "sub/up").symlink_to(root / "train")
    save(root / "train/stray.png")
    save(ape / ".hidden.png")
    save(ape / ".thumbnails/a.png")
    save(root / "train/__MACOSX/ape/a.png")
    os.mkfifo(ape / "pipe")  # opening it would block forever
    assert listed(root) == ["ape/a.png", "ape/c.png", "bee/a.png", "bee/b.png"]
    assert notes(caplog) == [
        f"passed over under {root}/: 5 files that are not images (test/README, …), 2 empty files "
        "(train/ape/features.h5, …), 2 broken links (train/ape/gone.png, …), 1 link to a folder that holds "
        "it (train/ape/sub/up), 1 image outside of class folders (train/stray.png), 3 hidden "
        "(train/__MACOSX, …)"
    ]


def test_a_class_without_images_names_what_it_holds(root):
    for path in (root / "train/bee").iterdir():
        path.rename(path.with_name(f".{path.name}"))
    (root / "train/bee/1.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    says = (
        r"bee: holds no images \(.jpg, .*\), but 1 file that is not an image \(train/bee/1.heic\), 2 hidden"
    )
    with pytest.raises(UserError, match=says):
        list_image_folder(root, DatasetConfig())


def test_links_that_go_round_end(root, caplog):
    other = root.parent / "other"
    save(other / "x.png")
    (root / "train/ape/there").symlink_to(other)
    (other / "back").symlink_to(root / "train/ape")
    assert listed(root)[:3] == ["ape/a.png", "ape/c.png", "ape/there/x.png"]
    assert notes(caplog) == [
        f"passed over under {root}/: 1 link to a folder that holds it (train/ape/there/back)"
    ]


def test_files_of_known_extension_are_not_opened(root, monkeypatch):
    monkeypatch.setattr("extract.sources.folders.is_image", lambda path: pytest.fail(path))
    assert len(listed(root)) == 4
    (root / "train/ape/d.gif").touch()
    assert len(listed(root)) == 5


@pytest.mark.parametrize("name", ["d.gif", "d.jfif", "d.JP2", "d.tga", "d.png"])
def test_a_file_that_is_named_like_an_image_is_not_left_out_in_silence(root, name):
    for content in (b"", b"no image"):
        (root / "train/ape" / name).write_bytes(content)
        result = run("train", *FOLDER, *TINY, "--root", root, "--out", root.parent / "phase1")
        assert result.exit_code == 2
        assert f"train/ape/{name}: not a readable image" in result.stderr


@pytest.mark.parametrize("name", ["dev", "Dev"])
def test_a_validation_folder_of_another_name_is_said_to_be_unused(root, caplog, name):
    save(root / name / "ape/a.png")
    assert list(list_image_folder(root, DatasetConfig()).splits) == ["train", "test"]
    assert notes(caplog) == [
        f"{root / name}/ is not used; validation images are looked for in val/, valid/ or validation/"
    ]


def test_a_checkpoint_of_version_0_1_finds_the_images_that_it_found(tmp_path):
    """Its training did not count files in subfolders or with other extensions."""
    images = Path(shutil.copytree(PROGRAM_0_1 / "images", tmp_path / "images"))
    for split in ("train", "test"):
        save(images / split / "ape/more/1.png")
        save(images / split / "ape/2.gif")
    command = ["evaluate", "--ckpt", PROGRAM_0_1 / "phase1/checkpoint.pt", "--root", images, "--json"]
    found = json.loads(succeed(*command, "--device", "cpu").stdout)
    assert (found["n_correct"], found["n_test"]) == (4, 12)

    before = sum(load_checkpoint(PROGRAM_0_1 / "phase1/checkpoint.pt").class_counts)
    out = tmp_path / "phase1"
    succeed("train", *FOLDER, *TINY, "--root", images, "--out", out)
    assert sum(load_checkpoint(out / "checkpoint.pt").class_counts) == before + 2
    found = json.loads(succeed("evaluate", "--ckpt", out / "checkpoint.pt", "--json").stdout)
    assert found["n_test"] == 14
