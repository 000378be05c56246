"""Gathered rows against plain indexing, in both containers."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from faults import refused_after_fork
from made_store import made_rows, make_store

from store.arrays.gather import gather
from store.reader import FeatureStore
from store.storage.mmap_files import MappedFiles

MAPS = made_rows()["train/feature_map"]
SETS = {
    "all": np.arange(44),
    "backwards": np.arange(44)[::-1],
    "one": np.array([17]),
    "none": np.array([], np.int64),
    "repeated": np.array([5, 5, 43, 5, 0, 43]),
    "across blocks": np.array([15, 16, 17, 31, 32]),
    "random": np.random.default_rng(0).integers(0, 44, 200),
}


@pytest.fixture(params=[".zarr", ".h5"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    make_store(tmp_path / f"s{request.param}")
    return FeatureStore(tmp_path / f"s{request.param}")


@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
def test_rows_come_in_the_order_asked_for(stored, rows):
    array = stored.arrays["train/feature_map"]
    np.testing.assert_array_equal(gather(array, rows), MAPS[rows], strict=True)
    out = np.full((len(rows), *MAPS.shape[1:]), np.nan, np.float16)
    assert gather(array, rows, out, n_threads=4) is out
    np.testing.assert_array_equal(out, MAPS[rows])


def test_every_neighbour_is_read_once_and_in_storage_order(stored, monkeypatch):
    reads = []
    copy_rows = MappedFiles.copy_rows

    def counted(self, extent, rows, places, target):
        reads.extend(rows.tolist())
        copy_rows(self, extent, rows, places, target)

    monkeypatch.setattr(MappedFiles, "copy_rows", counted)
    array = stored.arrays["train/feature_map"]
    gather(array, np.array([9, 3, 8, 2, 3, 30, 7]))
    assert reads == [2, 3, 7, 8, 9, 30]


@pytest.mark.parametrize("large_row", [1, 10**9])
def test_more_rows_than_one_thread_takes_at_once(stored, monkeypatch, large_row):
    monkeypatch.setattr("store.arrays.raw.READ_BYTES", 5 * MAPS[0].nbytes)
    monkeypatch.setattr("store.storage.mmap_files.LARGE_ROW", large_row)
    rows = np.random.default_rng(1).permutation(44)
    for n_threads in (1, 2, 4):
        read = gather(stored.arrays["train/feature_map"], rows, n_threads=n_threads)
        np.testing.assert_array_equal(read, MAPS[rows])


def test_many_threads_read_one_array(stored):
    array = stored.arrays["train/feature_map"]
    generator = np.random.default_rng(2)
    sets = [generator.integers(0, 44, 50) for _ in range(64)]
    with ThreadPoolExecutor(8) as executor:
        for rows, read in zip(sets, executor.map(lambda rows: gather(array, rows), sets), strict=True):
            np.testing.assert_array_equal(read, MAPS[rows])


def test_files_stay_few(stored, monkeypatch):
    monkeypatch.setattr("store.storage.mmap_files.MAPPED_FILES", 1)
    array = stored.arrays["train/feature_map"]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        np.testing.assert_array_equal(gather(array, np.arange(44)), MAPS)
    assert len(array.files._maps) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize("rows", [[-1], [44], [0, 44]])
def test_rows_that_are_not_there(stored, rows):
    with pytest.raises(IndexError, match="of 44"):
        gather(stored.arrays["train/feature_map"], np.array(rows))


@pytest.mark.parametrize(
    "out",
    [np.empty((2, 3, 3, 6)), np.empty((3, 3, 3, 6), np.float16), np.empty((4, 3, 3, 6), np.float16)[::2]],
    ids=["dtype", "shape", "strided"],
)
def test_a_buffer_that_does_not_fit(stored, out):
    with pytest.raises(ValueError, match="expected contiguous float16"):
        gather(stored.arrays["train/feature_map"], np.array([0, 1]), out)


def test_a_forked_child_is_refused(stored):
    array = stored.arrays["train/feature_map"]
    gather(array, np.array([0]))
    assert refused_after_fork(array)


def test_a_read_that_comes_in_pieces(stored, monkeypatch):
    """As Linux does with reads of more than 2 GiB."""
    array = stored.arrays["train/feature_map"]
    opened = array.files._open

    class InPieces:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def readinto(self, target):
            return self.file.readinto(target[:100])

    monkeypatch.setattr(array.files, "_open", lambda extent: InPieces(opened(extent)))
    np.testing.assert_array_equal(array.read(), MAPS)


def test_ctrl_c_waits_for_the_other_threads(stored, monkeypatch):
    """Nobody writes to the buffer of a gather that has ended: the other thread is waited for."""
    monkeypatch.setattr("store.arrays.raw.READ_BYTES", 1)
    array, main = stored.arrays["train/feature_map"], threading.current_thread()
    going, waited_for, copied = threading.Event(), threading.Event(), []

    def copy_rows(extent, rows, places, target):
        if threading.current_thread() is main:
            going.wait()
            raise KeyboardInterrupt
        going.set()
        waited_for.wait()
        copied.append(int(rows[0]))

    def waiting(others):
        waited_for.set()
        wait(others)

    monkeypatch.setattr(array.files, "copy_rows", copy_rows)
    monkeypatch.setattr("store.arrays.gather.wait", waiting)
    try:
        with pytest.raises(KeyboardInterrupt):
            gather(array, np.arange(44), n_threads=2)
        assert copied == list(range(22, 44))
    finally:
        waited_for.set()
