"""Two threads compute what one does, to the bit, through everything that passes images through a network.

The suite sets torch to one thread, so that all other tests take batches whole or in turn.
"""

import threading
from pathlib import Path

import numpy as np
import pytest
from bad_input import succeed
from made_store import contents

from extract.device import set_threads_here
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path", "small_pieces", "two_threads")
CPU = ("--device", "cpu")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Batches of several pieces of three images at most; the names of threads that decided on them."""
    seen: set[str] = set()

    def at_once(*of: object) -> int:
        seen.add(threading.current_thread().name)
        return 3

    monkeypatch.setattr("extract.inference.pieces.images_at_once", at_once)
    return seen


def extracted(ckpt: Path, n_threads: int, *options: object) -> dict[str, bytes]:
    set_threads_here(n_threads)
    succeed("extract", "--ckpt", ckpt, "--batch-size", 8, "--overwrite", *CPU, *options)
    return contents(Path("feats.zarr"))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--precision", "bf16"),
        ("--views", 3, "--workers", 2),
        ("--layers", "layer2,layer3"),
        ("--views", 2, "--dtype", "bfloat16", "--codec", "zstd"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
@pytest.mark.parametrize("images", ["memory", "files"])
def test_a_store_has_the_same_bytes(options, images, small_ckpt, small_pieces, monkeypatch):
    monkeypatch.setattr("extract.provenance.now", lambda: 1_700_000_000)
    if images == "files":
        monkeypatch.setattr("extract.dataset.IN_MEMORY_SIZE", 8)
    one, two = (extracted(small_ckpt, n_threads, *options) for n_threads in (1, 2))
    assert small_pieces == {"MainThread", "features_0"}
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_predictions_are_the_same_numbers(command, small_ckpt, small_root, small_pieces):
    said = []
    for n_threads in (1, 2):
        set_threads_here(n_threads)
        source = (small_root / "test",) if command == "predict" else ("--split", "test")
        said.append(succeed(command, "--ckpt", small_ckpt, "--batch-size", 8, *source, *CPU).stdout)
    assert small_pieces == {"MainThread", "features_0"}
    assert said[0] == said[1]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_no_piece_is_empty_where_each_has_one_image(n_threads, small_ckpt, small_store, monkeypatch):
    """Batches of 5 would have 8 pieces of at most one image, by powers of two."""
    monkeypatch.setattr("extract.inference.pieces.images_at_once", lambda *of: 1)
    set_threads_here(n_threads)
    succeed("extract", "--ckpt", small_ckpt, "--batch-size", 5, "--layers", "layer2", *CPU)
    one, whole = FeatureStore(Path("feats.zarr")), FeatureStore(small_store)
    pooled, expected = one.read("train").pooled, whole.read("train").pooled
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
