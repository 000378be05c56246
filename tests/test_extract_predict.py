"""`predict` on loose images: what `evaluate` sees of the same files, and what the user reads of it."""

import io
import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import TINY, refuse, run, succeed
from made_images import png16
from PIL import Image

import tailcache as tc
from extract.checkpoints.checkpoint import load_checkpoint
from extract.checkpoints.restore import restore
from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import read_image
from extract.images.transforms import evaluation_image
from extract.inference.passes import by_class

CPU = ["--device", "cpu", "--workers", "0"]
CLASSES = ("ape", "bee", "cat")
SIZES = (16, 72)  # in memory during evaluation, and read in batches


def write_odd_images(root: Path) -> Path:
    """Class folders of photographs that lie turned, 16-bit grey, and colours of any shape."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 5), ("test", 6)):
        for class_id, name in enumerate(CLASSES):
            folder = root / split / name / "of_spring"
            folder.mkdir(parents=True)
            for i in range(n):
                slope = np.linspace(0, 60 + 90 * class_id, 40 + 9 * i)[None, :, None]
                pixels = (rng.integers(0, 60, (50, 40 + 9 * i, 3)) + slope).astype(np.uint8)
                turned = Image.Exif()
                turned[0x0112] = 6 if i % 2 else 1
                Image.fromarray(pixels).save(folder / f"{i}.jpg", exif=turned)
            (folder.parent / "deep.png").write_bytes(png16(pixels[..., :1].astype(np.uint16) * 4 + class_id))
    return root


@pytest.fixture(scope="module", params=SIZES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, and `phase1` trained on them at one of two sizes."""
    folder = tmp_path_factory.mktemp("odd")
    root = write_odd_images(folder / "photos")
    size = ["--image-size", request.param]
    succeed("train", "--root", root, *TINY, "--epochs", 2, *size, *CPU, "--out", folder / "phase1")
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder."""
    monkeypatch.chdir(trained)
    return trained


CKPT = ["--ckpt", "phase1/checkpoint.pt"]


def table(*arguments: object) -> pd.DataFrame:
    """What `predict` prints."""
    return pd.read_csv(io.StringIO(succeed("predict", *CKPT, *CPU, *arguments).stdout))


def probabilities_in_evaluation(quiet) -> dict[str, np.ndarray]:
    """float32 (K,) of each test image, from the network on the batches of `evaluate`."""
    restored = restore(Path("phase1/checkpoint.pt"), None, quiet, only=("test",))
    split = by_class(restored.dataset.splits["test"])
    compute = Compute(torch.device("cpu"), "fp32", 128, 0)
    with torch.inference_mode():
        batches = [images for images, _ in evaluation_batches(split, restored.transform, compute)]
        found = torch.cat([restored.network(images).softmax(dim=1) for images in batches])
    return dict(zip([name.decode() for name in split.name], found.numpy(), strict=True))


def test_predictions_are_those_of_evaluate_image_by_image(here, quiet):
    """Turned photographs and 16-bit grey included; in the batches of `evaluate` to the bit."""
    expected = probabilities_in_evaluation(quiet)
    frame = tc.predict("phase1/checkpoint.pt", "photos/test", device="cpu", workers=0)
    assert [path.removeprefix("photos/") for path in frame["path"]] == sorted(expected)
    names = np.array(CLASSES)
    for row in frame.itertuples():
        probability = expected[row.path.removeprefix("photos/")]
        order = np.argsort(-probability, kind="stable")
        assert [row.class_1, row.class_2, row.class_3] == names[order].tolist()
        assert [row.probability_1, row.probability_2, row.probability_3] == probability[order].tolist()
    assert len({tuple(p) for p in expected.values()}) == len(expected)  # else any order would do
    in_other_batches = table(*reversed(frame["path"]), "--batch-size", 5, "--workers", 2)
    again = in_other_batches.iloc[::-1].reset_index(drop=True)
    assert (again["class_1"] == frame["class_1"]).all()
    np.testing.assert_allclose(again["probability_1"], frame["probability_1"], atol=1e-5)


UNTURNED = "phase1/checkpoint.pt: was trained on photographs that were not turned as EXIF says, and reads"


def test_a_checkpoint_that_never_turned_photographs_sees_them_so(here, quiet, monkeypatch):
    """As of version 0.1: the same pixels as in `evaluate`, image by image, and a note."""
    turned = tc.predict("phase1/checkpoint.pt", "photos/test", device="cpu", workers=0)
    content = torch.load("phase1/checkpoint.pt", weights_only=True)
    content["transform"]["upright"] = False
    (here / "old/phase1").mkdir(parents=True, exist_ok=True)
    torch.save(content, "old/phase1/checkpoint.pt")
    (here / "old/photos").exists() or (here / "old/photos").symlink_to(here / "photos")
    assert UNTURNED not in succeed("predict", *CKPT, *CPU, "photos/test").stderr
    monkeypatch.chdir(here / "old")
    said = succeed("predict", *CKPT, *CPU, "photos/test", "--out", "p.csv", "--overwrite").stderr
    assert said.count(UNTURNED) == 1
    assert UNTURNED not in succeed("predict", *CKPT, *CPU, "photos/test/ape/of_spring/0.jpg").stderr
    expected = probabilities_in_evaluation(quiet)
    found = pd.read_csv("p.csv")
    for row in found.itertuples():
        probability = np.sort(expected[row.path.removeprefix("photos/")])[::-1]
        np.testing.assert_allclose([row.probability_1, row.probability_2], probability[:2], rtol=1e-5)
    lies = found["path"].str.contains(r"[135]\.jpg")
    same = np.isclose(found["probability_1"], turned["probability_1"], rtol=1e-6)
    assert same[~lies].all()
    assert not same[lies].any()


def test_counts_are_those_of_evaluate(here):
    found = json.loads(succeed("evaluate", *CKPT, *CPU, "--json").stdout)
    frame = table("photos/test", "--top", 1)
    assert list(frame.columns) == ["path", "class_1", "probability_1"]
    right = frame["path"].str.split("/").str[2] == frame["class_1"]
    assert int(right.sum()) == found["n_correct"]
    assert len(frame) == found["n_test"] == 21


def test_files_folders_and_tables_in_the_order_in_which_they_are_named(here, tmp_path):
    below = [f"photos/test/ape/of_spring/{i}.jpg" for i in range(6)]
    Path(tmp_path / "list.csv").write_text(
        f'"a file";kind\n{here}/photos/test/bee/deep.png;1\n{here}/photos/test/ape/deep.png;2\n'
    )
    Path("near.TSV").write_text("path\nphotos/test/cat/deep.png\n")
    frame = table("photos/test/cat/deep.png", "photos/test/ape/of_spring", "near.TSV", below[0])
    named = ["photos/test/cat/deep.png"]
    assert frame["path"].tolist() == [*named, *below, *named, below[0]]
    assert frame.iloc[0].equals(frame.iloc[7])
    found = table(tmp_path / "list.csv", "--path-column", "a file", "--top", 9)
    assert found["path"].tolist() == [f"{here}/photos/test/{name}/deep.png" for name in ("bee", "ape")]
    assert found.shape == (2, 1 + 2 * 3)
    np.testing.assert_allclose(found.filter(like="probability").sum(axis=1), 1, rtol=1e-5)
    Path("near.TSV").unlink()


def test_every_kind_of_table_is_read_as_in_training(here, tmp_path):
    files = sorted(Path("photos/test/bee").rglob("*.*"))
    expected = table(*files)
    paths = pd.DataFrame({"path": [str(here / file) for file in files], "label": range(len(files))})
    paths.to_parquet(tmp_path / "paths.parquet")
    paths.to_csv(tmp_path / "list.txt", index=False, header=False, sep=" ")
    paths[["path"]].rename(columns={"path": "File Name"}).to_csv(tmp_path / "one.txt", index=False)
    images = [{"image": {"bytes": file.read_bytes(), "path": file.name}} for file in files]
    pd.DataFrame(images).to_parquet(tmp_path / "images.parquet")
    for name in ("paths.parquet", "list.txt", "one.txt", "images.parquet"):
        found = table(tmp_path / name, "--cam", tmp_path / f"maps of {name}")
        pd.testing.assert_frame_equal(found.drop(columns="path"), expected.drop(columns="path"))
    assert found["path"].tolist() == [
        f"{tmp_path}/images.parquet/{i}/{file.name}" for i, file in enumerate(files)
    ]
    assert len(list((tmp_path / "maps of images.parquet").rglob("*.png"))) == len(files)
    shutil.copytree(tmp_path, "tables")
    found = table("tables/images.parquet", "--cam", "maps")
    assert found["path"].tolist() == [
        f"tables/images.parquet/{i}/{file.name}" for i, file in enumerate(files)
    ]
    assert sorted(str(path.relative_to("maps")) for path in Path("maps").rglob("*.png")) == sorted(
        f"images.parquet/{i}/{file.name}.png" for i, file in enumerate(files)
    )


def test_json_and_a_file_hold_the_same(here, tmp_path):
    printed = table("photos/test/ape")
    out = tmp_path / "new" / "predictions.csv"
    said = succeed("predict", *CKPT, *CPU, "photos/test/ape", "--out", out).stdout
    assert said == f"{out}: 7 images\n"
    pd.testing.assert_frame_equal(pd.read_csv(out), printed)
    as_json = json.loads(succeed("predict", *CKPT, *CPU, "photos/test/ape", "--json").stdout)
    pd.testing.assert_frame_equal(pd.DataFrame(as_json), printed, check_exact=False)
    refuse("predict", *CKPT, "photos", "--out", out, says=["already exists; pass --overwrite"])
    succeed("predict", *CKPT, *CPU, "photos/test/bee/deep.png", "--out", out, "--overwrite")
    assert len(pd.read_csv(out)) == 1


def expected_overlay(path: str) -> np.ndarray:
    """Computed step by step, from the definition."""
    network = tc.load_network("phase1/checkpoint.pt")
    transform = restore_transform()
    seen = evaluation_image(read_image(Path(path), None, transform.reading), transform).float()
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    with torch.inference_mode():
        maps = network.features(((seen / 255 - mean) / std)[None])[0]
        label = network.classify(maps.mean((1, 2))[None])[0].argmax()
        cam = (network.classifier.weight[label][:, None, None] * maps).sum(0)
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    heat = torch.nn.functional.interpolate(cam[None, None], seen.shape[1:], mode="bilinear")[0, 0].numpy()
    return (seen.permute(1, 2, 0).numpy() + matplotlib.colormaps["turbo"](heat)[..., :3] * 255) / 2


def restore_transform():
    from extract.checkpoints.checkpoint import described
    from extract.images.transforms import Transform

    path = Path("phase1/checkpoint.pt")
    return described(Transform, load_checkpoint(path).transform, path)


def test_maps_are_laid_over_what_the_network_saw(here, tmp_path):
    maps = tmp_path / "maps"
    frame = table("photos/test", "--cam", maps)
    files = sorted(str(path.relative_to(maps)) for path in maps.rglob("*") if path.is_file())
    assert files == [f"{path.removeprefix('photos/test/')}.png" for path in frame["path"]]
    for name in ("ape/of_spring/1.jpg", "cat/deep.png"):  # one turned, one of 16 bits
        found = np.asarray(Image.open(maps / f"{name}.png")).astype(float)
        assert np.abs(found - expected_overlay(f"photos/test/{name}")).max() < 4  # one step of 256 colours
    refuse("predict", *CKPT, "photos", "--cam", maps, says=[f"{maps}: is not empty; name a new folder"])


def test_an_unreadable_image_stops_it_or_is_listed(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (30, 30), (name == "b" and "red") or "blue").save(f"in/{name}.png")
    Path("in/b.png").write_bytes(Path("in/b.png").read_bytes()[:40])
    command = ["predict", "--ckpt", here / "phase1/checkpoint.pt", "in", *CPU]
    says = ["in/b.png: not a readable image", "--skip-bad-images"]
    refuse(*command, "--cam", "maps", "--out", "p.csv", says=says)
    refuse(*command, "--batch-size", 1, "--cam", "maps", "--out", "p.csv", says=says)
    result = succeed(*command, "--skip-bad-images", "--cam", "maps")
    assert pd.read_csv(io.StringIO(result.stdout))["path"].tolist() == ["in/a.png", "in/c.png"]
    assert result.stderr.count("left out: in/b.png: not a readable image (") == 1
    assert sorted(path.name for path in Path("maps").iterdir()) == ["a.png.png", "c.png.png"]
    refuse(*command[:3], "in/b.png", "--skip-bad-images", says=["in/b.png: none of 1 images can be read"])


@pytest.mark.usefixtures("in_tmp_path")
def test_what_cannot_be_predicted_is_one_line(small_ckpt, small_root):
    Path("empty").mkdir()
    Path("t.csv").write_text("where,n\nx.png,1\n")
    Path("no_header.txt").write_text("x.png\ny.png\n")
    Path("short.csv").write_text("path,n\nx.png\n")
    Path("gone.csv").write_text("path\nx.png\n")
    Path("none.csv").write_text("path\n")
    Path("hole.csv").write_text('path,n\n"",1\n')
    Path("latin.csv").write_bytes(b"path\n\xe9.png\n")
    image = small_root / "test/ape/0.png"
    for arguments, says in {
        ("none.png",): "none.png: no such file or folder",
        ("empty",): "empty: holds no images",
        ("t.csv",): "t.csv: no column is obviously the column of the paths of images; name it with --path-",
        ("no_header.txt",): "no_header.txt: its first line is a row, with x.png, and no header",
        ("short.csv",): "short.csv, line 2: has 1 field, expected 2 as in the header",
        (
            "t.csv",
            "--path-column",
            "x",
        ): "--path-column x: t.csv has no such column; its first line has where",
        ("gone.csv",): "gone.csv, line 2: x.png: no such file",
        ("none.csv",): "none.csv: has a header but no rows",
        ("hole.csv",): "hole.csv, line 2: the path is empty (column path)",
        ("latin.csv",): "latin.csv: is not a table in UTF-8",
        (small_ckpt,): "checkpoint.pt: not a readable image (unknown format)",
        (image, "--top", "0"): "--top 0: must be 1 or more",
        (image, "--out", "empty"): "empty: is a folder",
        (image, "--cam", "t.csv"): "t.csv: is a file; name a new folder",
        ("t.csv", "--path-column", "n", "--out", "t.csv", "--overwrite"): "t.csv: this command reads that",
        (small_root, "--out", image, "--overwrite"): "0.png: this command reads that file",
        (image, "--out", small_ckpt, "--overwrite"): "checkpoint.pt: this command reads that file",
    }.items():
        refuse("predict", "--ckpt", small_ckpt, *CPU, *arguments, says=[says])
    assert run("predict", "--ckpt", small_ckpt).exit_code == 2
    with pytest.raises(tc.UserError, match="no images; name files"):
        tc.predict(small_ckpt, [])
