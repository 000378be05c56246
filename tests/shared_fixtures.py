"""Fixtures of several files: one small trained network and its store, made once for the whole session."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import FOLDER, QUICK, TINY, succeed, write_images
from made_average import COMPLEMENTARY, noisy_posthoc_head
from made_contest import FEW
from made_course import make_course_store
from made_fitted import GROUPS, fit_store, write_pairs
from made_store import make_store, stopped_clock, written
from made_workers import allow_two, made_split, nothing_left
from PIL import Image
from read_once import once_for_its_bytes
from rich.progress import Progress
from s3_server import CREDENTIALS, make_bucket, s3_server

from extract.config import DatasetConfig, ExtractConfig, NetworkConfig, TrainConfig
from extract.device import set_threads_here
from extract.dump import extract
from extract.images.image_set import ImageSet
from extract.train import train
from finetune.contest import entries
from finetune.contest.config import ContestConfig
from store import provenance
from store.storage.location import locate
from store.storage.s3 import Bucket

QUIET = Progress(disable=True)
torch.load = once_for_its_bytes(torch.load)
provenance.GIT_SECONDS = 60  # git must answer on a busy machine too, since stores are compared
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the suite beside others
torch.set_num_threads(1)  # small networks gain nothing by more, and lose much where cores are shared
SMALL = NetworkConfig("resnet8", width=4)


@pytest.fixture
def quiet() -> Progress:
    """A progress bar that shows nothing."""
    return QUIET


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch computes on two cores, as it does for most who use the program."""
    before = torch.get_num_threads()
    set_threads_here(2)
    yield
    set_threads_here(before)


@pytest.fixture(scope="session")
def phase1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a narrow network after one epoch on long-tailed digits, with a validation split."""
    out = tmp_path_factory.mktemp("phase1")
    dataset = DatasetConfig("digits", imbalance_factor=20, val_per_class=5)
    config = TrainConfig(
        out=str(out), network=SMALL, dataset=dataset, epochs=2, batch_size=32, device="cpu", overwrite=True
    )
    train(config, QUIET)
    return out / "checkpoint.pt"


@pytest.fixture(scope="session")
def feature_store(phase1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store extracted with `phase1`, maps in float32 so that equalities are tight."""
    path = tmp_path_factory.mktemp("store") / "feats.zarr"
    extract(ExtractConfig(str(phase1), str(path), dtype="float32", device="cpu"), QUIET)
    return path


@pytest.fixture
def few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contest of three entries, of four, eleven and two configurations."""
    monkeypatch.setattr(entries, "ENTRIES", FEW)


@pytest.fixture
def complementary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contest of two entries, each with noise that the other has with the opposite sign."""
    monkeypatch.setattr(entries, "ENTRIES", COMPLEMENTARY)
    for where in ("finetune.sweep.batch", "finetune.one_head"):
        monkeypatch.setattr(f"{where}.posthoc_head", noisy_posthoc_head)


@pytest.fixture
def contest_config(feature_store: Path) -> ContestConfig:
    """A contest on `feature_store`, in the folder `c`."""
    return ContestConfig((str(feature_store),), "c", iterations=30, device="cpu")


@pytest.fixture(scope="session")
def pairs_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a fitted classifier, whose images come in groups of two; no test may change it."""
    folder = tmp_path_factory.mktemp("pairs")
    return fit_store(folder, write_pairs(folder / "photos"), *GROUPS)


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_behind():
    """What tests write is in folders of their own, not in the one that they are started from."""
    before = set(os.listdir())
    yield
    made_by_python = {"__pycache__", "build", "tailcache.egg-info"}
    left = {name for name in set(os.listdir()) - before - made_by_python if not name.startswith(".")}
    assert not left, f"tests left {', '.join(sorted(left))} in {os.getcwd()}"


@pytest.fixture(autouse=True)
def _default_generator_untouched():
    """Every random choice comes from a seed: nothing may draw from torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(autouse=True)
def _clock_stopped():
    """Stores are compared file by file."""
    with stopped_clock():
        yield


@pytest.fixture(autouse=True)
def _figures_drawn_for_their_own_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Figures are created in every report, but drawn, which takes a second, only in tests about them."""
    if request.node.get_closest_marker("figures"):
        monkeypatch.setattr("finetune.compare.files.DOTS_PER_INCH", 50)
    else:
        monkeypatch.setattr("finetune.compare.files._png", lambda figure: b"not drawn")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a temporary folder: default output paths are relative, and `refuse` checks there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give small stores several blocks, the last partly filled; no syncs: a kill is not a power cut."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 512)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A good image folder, to be damaged."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def ten_images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Files of noise, for workers to read. Do not change them."""
    return made_split(tmp_path_factory.mktemp("ten"))


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two workers on any machine, checked often; after the test nothing is left of them."""
    allow_two(monkeypatch)
    with nothing_left():
        yield


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good image folder. Do not change it."""
    return write_images(tmp_path_factory.mktemp("small") / "images")


@pytest.fixture(scope="session")
def small_ckpt(small_root: Path) -> Path:
    """A finished Phase I on `small_root`; no validation split. Do not change it."""
    out = small_root.parent / "phase1"
    succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", out)
    return out / "checkpoint.pt"


@pytest.fixture(scope="session")
def small_store(small_ckpt: Path) -> Path:
    """The store of `small_ckpt`. Do not change it."""
    path = small_ckpt.parents[1] / "feats.zarr"
    succeed("extract", "--ckpt", small_ckpt, "--store", path, "--device", "cpu")
    return path


@pytest.fixture(scope="session")
def course_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose fine-tuning takes a known course. Do not change it."""
    return make_course_store(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="session")
def digits_run(feature_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Phase II on digits. Do not change it."""
    out = tmp_path_factory.mktemp("runs") / "fsa"
    succeed("finetune", "--store", feature_store, "--method", "fsa", "--out", out, *QUICK)
    return out


@pytest.fixture(scope="session")
def blinking_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 8×8 images, small enough for an epoch to take a moment."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, n in (("train", 18), ("test", 4)):
        for class_id in range(3):
            (folder / split / str(class_id)).mkdir(parents=True)
            for row in range(n):
                pixels = generator.integers(0, 120, (8, 8, 3)) + 60 * class_id
                path = folder / split / str(class_id) / f"{row}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def tiny(blinking_root: Path, tmp_path: Path) -> TrainConfig:
    """The options of a tiny training; tests replace those that they are about."""
    return TrainConfig(
        out=str(tmp_path / "run"),
        network=NetworkConfig("resnet8", width=2),
        dataset=DatasetConfig("imagefolder", str(blinking_root), imbalance_factor=3),
        image_size=8,
        epochs=3,
        batch_size=8,
        lr=0.05,
        device="cpu",
    )


@pytest.fixture(params=[".zarr", ".h5", "packed.h5"])
def store_path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write a store that takes several blocks; compressed HDF5 is written in another way."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    monkeypatch.setattr("made_store.CODEC", "zstd" if request.param == "packed.h5" else "none")
    # A killed process loses nothing that it wrote, synced or not, and syncing takes longest.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return tmp_path / f"s{request.param}"


@pytest.fixture
def whole_store(store_path: Path) -> dict[str, bytes]:
    """The files of the store that an uninterrupted writer leaves."""
    return written(store_path, make_store)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    with s3_server() as address:
        make_bucket(address, "bucket")
        yield address


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty place for a store in several blocks."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    return locate(f"s3://bucket/{abs(hash(request.node.name))}/s.zarr")
