"""Every dtype and codec of feature maps, in both containers, read by our reader and by zarr and HDF5."""

import h5py
import hdf5plugin  # noqa: F401 finds its filters by it
import ml_dtypes
import numpy as np
import pytest
import zarr
from made_store import made_plan, made_rows, write_made
from rich.progress import Progress

from store.arrays.codecs import CODECS
from store.arrays.dtypes import LARGEST_CODE, OF_SCALE, RELATIVE, computing_dtype, encode
from store.arrays.gather import gather
from store.reader import FeatureStore
from store.schema import MAP_DTYPES, SCALED
from store.verify import verify

ROWS = made_rows()
EXACT = ROWS["train/feature_map"].astype(np.float32)
VIEWS = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3": ml_dtypes.float8_e4m3fn}


@pytest.fixture(
    params=[(s, d, c) for s in (".zarr", ".h5") for d in MAP_DTYPES for c in CODECS], ids="-".join
)
def made(request, tmp_path, monkeypatch):
    """A store of several blocks, the last partly filled."""
    suffix, dtype, codec = request.param
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 4096)
    monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 512)
    monkeypatch.setattr("made_store.CODEC", codec)
    write_made(tmp_path / f"s{suffix}", made_plan(dtype=dtype), ROWS)
    return FeatureStore(tmp_path / f"s{suffix}")


def test_sound_and_close_to_what_was_computed(made):
    assert list(verify(made, Progress(disable=True))) == []
    maps = made.read_feature_map()
    assert maps.dtype == computing_dtype(made.map_dtype)
    error = RELATIVE[made.map_dtype] * np.abs(EXACT)
    if made.map_dtype in SCALED:
        of_row = np.arange(len(EXACT)) // made.block_rows("train/feature_map")
        assert made.scale.shape == (of_row[-1] + 1, EXACT.shape[-1])
        error = 1.001 * error + OF_SCALE[made.map_dtype] * made.scale[of_row][:, None, None]
    assert (np.abs(maps.astype(np.float32) - EXACT) <= error).all()


def test_rows_are_gathered_in_any_order(made):
    array = made.arrays["train/feature_map"]
    codes = array.read()
    rows = np.random.default_rng(0).integers(0, len(EXACT), 100)
    np.testing.assert_array_equal(gather(array, rows), codes[rows], strict=True)
    np.testing.assert_array_equal(array.read(5, 21), codes[5:21], strict=True)


def test_the_containers_own_library_reads_the_same(made):
    root = zarr.open_group(made.path, mode="r") if made.path.is_dir() else h5py.File(made.path, "r")
    values = root["train/feature_map"][:]
    np.testing.assert_array_equal(values, made.arrays["train/feature_map"].read(), strict=True)
    values = values.view(VIEWS.get(made.map_dtype, values.dtype)).astype(np.float32)
    if made.map_dtype in SCALED:
        scale = root["train/feature_map_scale"][:]
        values *= scale[np.arange(len(values)) // made.attributes["block_rows"]["train"]][:, None, None]
    np.testing.assert_array_equal(values.astype(computing_dtype(made.map_dtype)), made.read_feature_map())


@pytest.mark.parametrize("dtype", SCALED)
def test_lossy_codes_use_their_whole_range_and_keep_zero(dtype):
    maps = EXACT.copy()
    maps[..., 0] = 0
    maps[..., 1] *= 1e-6
    maps[..., 2] *= 1e4
    codes, scale = encode(maps, dtype)
    codes = codes.view({"int8": np.int8, "float8_e4m3": ml_dtypes.float8_e4m3fn}[dtype]).astype(np.float32)
    assert not codes[..., 0].any()
    assert (np.abs(codes[..., 1:]).max((0, 1, 2)) == LARGEST_CODE[dtype]).all()
    np.testing.assert_allclose(scale[0] * LARGEST_CODE[dtype], np.abs(maps).max((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_compression_saves_bytes(tmp_path, monkeypatch, suffix, codec):
    sizes = {"train": {"N": 64, "H": 4, "W": 4, "C": 64}, "test": {"N": 4, "H": 4, "W": 4, "C": 64}}
    rows = made_rows(sizes)
    rows["train/feature_map"][:, :, :, 5:] = 0
    taken = {}
    for name in ("none", codec):
        monkeypatch.setattr("made_store.CODEC", name)
        path = tmp_path / f"{name}{suffix}"
        write_made(path, made_plan(sizes), rows)
        files = path.rglob("*") if path.is_dir() else [path]
        taken[name] = sum(file.stat().st_size for file in files if file.is_file())
    assert taken["none"] - taken[codec] > rows["train/feature_map"].nbytes / 2


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_store_of_fewer_rows_than_a_chunk(tmp_path, monkeypatch, suffix, codec):
    """A chunk longer than its dataset is an error in HDF5; 16 KiB hold 100 of these maps."""
    sizes = {"train": {"N": 5, "H": 3, "W": 3, "C": 6}, "test": {"N": 3, "H": 3, "W": 3, "C": 6}}
    monkeypatch.setattr("made_store.CODEC", codec)
    rows, path = made_rows(sizes), tmp_path / f"few{suffix}"
    write_made(path, made_plan(sizes), rows)
    store = FeatureStore(path)
    assert np.array_equal(store.read_feature_map(), rows["train/feature_map"])
    assert not list(verify(store, Progress(disable=True)))
    others = zarr.open_group(path) if suffix == ".zarr" else h5py.File(path)
    assert np.array_equal(others["train/feature_map"][:], rows["train/feature_map"])
