"""`verify` finds every fault, and none in a sound store."""

import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from bit_flips import FlipCampaign, faults
from made_store import WITHOUT_VAL, fill, made_plan, made_rows, make_store

from store.errors import StoreError
from store.writer import write_store

N_FLIPS = 500  # of each container, raw and compressed


@pytest.fixture(params=[".zarr", ".h5", "packed.zarr", "packed.h5"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    monkeypatch.setattr("made_store.CODEC", "zstd" if "packed" in request.param else "none")
    return tmp_path / f"s{request.param}"


def write(path: Path, rows: dict[str, np.ndarray]) -> None:
    with write_store(path, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, rows)
        writer.finish()


def test_a_sound_store_has_no_fault(path):
    make_store(path)
    assert faults(path) == []


def test_extracted_stores_have_no_fault(feature_store, small_store):
    assert faults(feature_store) == []
    assert faults(small_store) == []


def unsorted(rows):
    rows["test/label"] = rows["test/label"][::-1]


def repeated(rows):
    rows["train/sample_index"] = np.zeros(44, np.int64)


def one_image_of_two_views(rows):
    rows["train/sample_index"][5], rows["train/view"][5] = rows["train/sample_index"][4], 1


def views_of_other_images(rows):
    rows["train/view"] = np.tile([0, 1], 22)


def views_from_1_on(rows):
    rows["train/view"][:] = 1


def views_of_test_images(rows):
    rows["test/sample_index"], rows["test/view"] = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    rows["test/label"] = np.repeat(np.sort(rows["test/label"][::2]), 2)


def of_no_class(rows):
    rows["val/label"] = rows["val/label"] + 3


def nan_feature(rows):
    rows["test/pooled"][3, 2] = np.nan


def nan_map(rows):
    rows["train/feature_map"][40, 0, 0, 0] = np.nan


def another_mean(rows):
    rows["train/pooled"][20, 1] *= 1.01


def another_span(rows):
    rows["train/cam"][7] *= 0.5


def another_cam(rows):
    rows["train/cam"][7] = rows["train/cam"][8]


def constant_cam(rows):
    rows["train/cam"][7] = 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (unsorted, "test/label: rows are not sorted"),
        (repeated, "train/sample_index: an image occurs twice"),
        (one_image_of_two_views, "train/view: not every image has every view"),
        (views_of_other_images, "train/view: not every image has every view"),
        (views_from_1_on, "train/view: not every image has every view"),
        (views_of_test_images, "test/view: not every image has view 0 alone"),
        (of_no_class, "val/label: is not within the 3 classes"),
        (nan_feature, "test/pooled: rows 0 to 19 hold NaN"),
        (nan_map, "train/feature_map: rows 32 to 43 hold NaN"),
        (another_mean, "train/pooled: rows 16 to 31 are not the means"),
        (another_span, "train/cam: rows 0 to 15 do not span 0 to 1"),
        (another_cam, "train/cam: rows 0 to 15 are not the class activation maps"),
        (constant_cam, "train/cam: rows 0 to 15 are not the class activation maps"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rows_that_cannot_be(path, wrong, says):
    rows = {name: value.copy() for name, value in made_rows().items()}
    wrong(rows)
    write(path, rows)
    assert any(fault.startswith(says) for fault in faults(path)), faults(path)


def test_swapped_shards_are_found_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    make_store(tmp_path / "s.zarr")
    shards = tmp_path / "s.zarr" / "train" / "pooled" / "c"
    (shards / "0").rename(shards / "x")
    (shards / "1").rename(shards / "0")
    (shards / "x").rename(shards / "1")
    assert faults(tmp_path / "s.zarr") == [
        "train/pooled: rows 0 to 15 do not match their checksum",
        "train/pooled: rows 16 to 31 do not match their checksum",
    ]


@pytest.mark.parametrize("cut", [0, 7])
def test_missing_and_cut_shards_are_found_and_named(tmp_path, monkeypatch, cut):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    make_store(tmp_path / "s.zarr")
    shard = tmp_path / "s.zarr" / "train" / "cam" / "c" / "1" / "0" / "0"
    if cut:
        shard.write_bytes(shard.read_bytes()[:-cut])
    else:
        shard.unlink()
    (fault,) = faults(tmp_path / "s.zarr")
    assert fault.startswith(f"train/cam: rows 16 to 31: {shard}: {'has' if cut else 'is missing'}")


def test_every_flipped_bit_is_found_or_harmless(path):
    """Harmless: a reader sees what it saw before. Anything but a fault or a StoreError is a bug."""
    make_store(path, sizes=WITHOUT_VAL)  # whose arrays are of every kind
    campaign, generator = FlipCampaign(path), np.random.default_rng(0)
    found = sum(campaign.one(generator) for _ in range(N_FLIPS))
    assert faults(path) == []
    assert found >= N_FLIPS // 4


def test_a_cut_file_is_found_and_named(path):
    if path.suffix == ".h5":
        make_store(path)
        whole = path.read_bytes()
        for cut in (1, 100, len(whole) // 2, len(whole) - 8, len(whole)):
            path.write_bytes(whole[: len(whole) - cut])
            with pytest.raises(StoreError, match=f"{path}: (has [0-9,]+ bytes, too few|not an HDF5 store)"):
                faults(path)


def swap_rows(path: Path, blocks: tuple[tuple[int, int], ...], name: str) -> None:
    """Swap blocks of rows inside an HDF5 file or, if compressed, chunks of equal size."""
    with h5py.File(path) as file:
        chunks = []
        if file[name].chunks:
            file[name].id.chunk_iter(lambda chunk: chunks.append((chunk.byte_offset, chunk.size)))
        else:
            row, start = file[name][0].nbytes, file[name].id.get_offset()
            chunks = [(start + first * row, (stop - first) * row) for first, stop in blocks]
    content = bytearray(path.read_bytes())
    (one, size), (two, _) = chunks[:2]
    size = min(size, *(n for _, n in chunks[:2]))
    content[one : one + size], content[two : two + size] = (
        content[two : two + size],
        content[one : one + size],
    )
    path.write_bytes(content)


def test_swapped_blocks_of_an_hdf5_file_are_found_and_named(path, monkeypatch):
    if path.suffix == ".h5":
        monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 1024)
        make_store(path)
        swap_rows(path, ((0, 16), (16, 32)), "train/feature_map")
        found = faults(path)
        assert found
        assert all(fault.startswith("train/feature_map: rows ") for fault in found)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [0, False])
@pytest.mark.parametrize("of", ["shard", "chunk"])
def test_shards_of_no_rows_are_refused(tmp_path, monkeypatch, axis, length, of):
    """One flipped bit in zarr's metadata leads there; the error is one line, without warnings from zarr."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    make_store(tmp_path / "s.zarr")
    metadata = tmp_path / "s.zarr" / "train" / "pooled" / "zarr.json"
    described = json.loads(metadata.read_text())
    part = described["chunk_grid"] if of == "shard" else described["codecs"][0]
    part["configuration"]["chunk_shape"][axis] = length
    metadata.write_text(json.dumps(described))
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(StoreError, match="of train/pooled are damag"),
    ):
        faults(tmp_path / "s.zarr")


def test_a_whole_split_may_be_missing(path, tmp_path):
    if path.suffix == ".zarr":
        make_store(path)
        shutil.rmtree(path / "val")
        assert faults(path) == ["metadata: attributes, shapes or dtypes do not match their checksum"]
