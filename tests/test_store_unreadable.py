"""Files of an open store that vanish, or that the system does not let be read: one line, whatever reads."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from made_store import make_store

from store.errors import StoreError, UserError
from store.reader import FeatureStore

NAMES = [".zarr", ".h5", "packed.zarr", "packed.h5"]


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("made_store.CODEC", "zstd" if "packed" in request.param else "none")
    make_store(tmp_path / f"s{request.param}")
    return tmp_path / f"s{request.param}"


def files_of(path: Path) -> list[Path]:
    """The files that hold rows."""
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json"]


READS = {
    "read": lambda store: store.read("train"),
    "classifier": lambda store: store.classifier,
    "read_feature_map": lambda store: store.read_feature_map(),
    "feature_map": lambda store: store.feature_map([3, 1]),
    "read_cam": lambda store: store.read_cam(),
}


@pytest.mark.parametrize("name", READS)
def test_a_store_that_is_gone(path, name):
    store = FeatureStore(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match=r": is (gone since it was opened; open it where it is|missing)$"):
        READS[name](store)


@pytest.mark.parametrize("name", READS)
def test_a_folder_in_the_place_of_a_file(path, name):
    """As a file without permission is to all but the administrator, who may run these tests."""
    store = FeatureStore(path)
    for file in files_of(path):
        file.unlink()
        file.mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); check its permissions, and the"):
        READS[name](store)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_fails(path, number, monkeypatch):
    store = FeatureStore(path)

    def failing(*arguments: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("store.storage.mmap_files.MappedFiles._open", failing)
    for read in READS.values():
        with pytest.raises(StoreError, match="cannot be read") as raised:
            read(store)
        assert os.strerror(number) in str(raised.value)
        assert "extract again" not in str(raised.value)  # which a disk that is away does not need
