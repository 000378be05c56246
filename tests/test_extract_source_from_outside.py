"""A source of images from outside the package is an object and a line of the registry, and nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, run, succeed

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import list_dataset
from extract.sources.listing import Listing, listed_images
from extract.sources.registry import SOURCES
from extract.sources.source import Source
from store.errors import UserError
from store.reader import FeatureStore

ROOT = Path(__file__).parent.parent
NETWORK = ["--arch", "resnet8", "--width", 4, "--epochs", 1, "--batch-size", 8, "--device", "cpu"]
TRAIN = ["train", "--dataset", "arrays", "--root", "data", *NETWORK, "--out", "phase1"]
PER_CLASS = 12, 8


def list_arrays(root: Path, config: DatasetConfig) -> Listing:
    """`ROOT/images.npz`: dark and bright images, an array and its labels for each split."""
    with np.load(root / "images.npz") as file:
        splits = {
            split: listed_images(torch.from_numpy(file[split]), file[f"{split}_label"])
            for split in ("train", "test")
        }
    return Listing(["dark", "bright"], splits)


def check_arrays(root: Path, config: DatasetConfig) -> None:
    if not (root / "images.npz").exists():
        raise UserError(f"{root}: holds no images.npz")


@pytest.fixture(autouse=True)
def arrays(in_tmp_path, monkeypatch):
    """The source, registered, and a folder for it."""
    rng, content = np.random.default_rng(0), {}
    for split, sizes in (("train", PER_CLASS), ("test", (3, 3))):
        label = np.repeat([0, 1], sizes)
        grey = rng.integers(0, 56, (len(label), 3, 16, 16)) + 200 * label[:, None, None, None]
        content[split] = grey.astype(np.uint8)
        content[f"{split}_label"] = label
    Path("data").mkdir()
    np.savez("data/images.npz", **content)
    monkeypatch.setitem(SOURCES, "arrays", Source(list_arrays, ("root", "no_flip"), None, check_arrays))
    return content


def test_it_is_trained_on_extracted_and_evaluated(arrays):
    trained = succeed(*TRAIN, "--image-size", 16)
    assert "half of the training images are mirrored; pass --no-flip" in trained.stderr
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert (checkpoint.class_names, checkpoint.class_counts) == (["dark", "bright"], list(PER_CLASS))
    assert checkpoint.dataset["dataset"] == "arrays"
    assert checkpoint.transform["flip"]
    assert np.allclose(checkpoint.transform["mean"], arrays["train"].mean((0, 2, 3)) / 255, atol=1e-4)
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu")
    store = FeatureStore(Path("feats.zarr"))
    test = store.read("test")
    assert np.bincount(store.read("train").label).tolist() == list(PER_CLASS)
    measured = succeed("evaluate", "--ckpt", "phase1/checkpoint.pt", "--json", "--device", "cpu")
    right = (test.pooled @ store.classifier[0].T + store.classifier[1]).argmax(1) == test.label
    assert json.loads(measured.stdout)["overall"] == pytest.approx(100 * right.mean())
    Path("data").rename("moved")
    evaluate = ["evaluate", "--ckpt", "phase1/checkpoint.pt", "--json", "--device", "cpu"]
    found = succeed(*evaluate, "--root", "moved")
    assert found.stdout == measured.stdout


def test_it_says_itself_which_options_it_takes():
    succeed(*TRAIN, "--image-size", 16, "--no-flip")
    assert not load_checkpoint(Path("phase1/checkpoint.pt")).transform["flip"]
    refuse(*TRAIN, "--download", "--overwrite", says=["--download: there is nothing to download for arrays"])
    refuse(*TRAIN, "--skip-bad-images", "--overwrite", says=["--skip-bad-images", "arrays has none"])
    refuse("train", "--dataset", "arrays", says=["--dataset arrays needs --root"])
    Path("empty").mkdir()
    refuse("train", "--dataset", "arrays", "--root", "empty", says=["empty: holds no images.npz"])


def test_help_and_refusals_name_the_source():
    assert "cifar100, imagefolder, table, arrays" in " ".join(run("train", "--help").stdout.split())
    refuse("train", "--dataset", "mnist", says=["'mnist' is not one of 'digits', ", "'arrays'"])
    with pytest.raises(UserError, match=r"--dataset mnist: unknown; expected one of digits, .*, arrays"):
        DatasetConfig("mnist").resolved()


def test_a_checkpoint_of_a_source_that_is_not_there_is_refused(monkeypatch, quiet):
    succeed(*TRAIN, "--image-size", 16)
    monkeypatch.delitem(SOURCES, "arrays")
    says = ["--dataset arrays: unknown; expected one of digits, "]
    refuse("evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu", says=says)
    with pytest.raises(UserError, match="--dataset arrays: unknown"):
        list_dataset(DatasetConfig("arrays"), quiet)


def test_what_is_known_of_sources_costs_no_heavy_import():
    heavy = ("torch", "numpy", "PIL", "sklearn", "torchvision")
    code = f"import sys, extract.sources.registry\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_outside_asks_for_a_source_by_name():
    """Except the demo, which names its data as a user would."""
    rooms = ("extract", "finetune", "store", "analysis")
    files = [ROOT / "cli.py", *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    outside = [p for p in files if "sources" not in p.parts[-2:] and p != ROOT / "finetune" / "demo.py"]
    assert len(outside) > 100
    for path in outside:
        nodes = ast.walk(ast.parse(path.read_text()))
        constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert not constants & (SOURCES.keys() - {"arrays"}), path
