"""Stores of version 2, which hold maps of earlier layers: written, read, resumed, verified and converted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_input import refuse, succeed
from made_store import BATCH, CLASSES, SIZES, contents, fill, made_plan, made_rows
from rich.progress import Progress

from store.arrays.dtypes import computing_dtype
from store.config import ConvertConfig
from store.convert import convert
from store.errors import StoreError
from store.layout import LayerMaps, store_layout
from store.reader import FeatureStore
from store.schema import is_scale
from store.spec import StoreSpec
from store.storage.s3 import Bucket
from store.verify import verify
from store.writer import write_store

pytestmark = pytest.mark.usefixtures("several_blocks")
QUIET = Progress(disable=True)
LAYERS = {
    "stem": LayerMaps((6, 5, 2), "float32"),
    "layer2.0": LayerMaps((3, 3, 4), "int8", "zstd"),
    "layer2": LayerMaps((3, 3, 4), "bfloat16"),
}
WITHOUT_CODEC = {layer: replace(maps, codec="none") for layer, maps in LAYERS.items()}
N = SIZES["train"]["N"]
FILLED = ("pooled", "feature_map", "cam")


def layered_plan(layers=LAYERS, dtype: str = "float16") -> StoreSpec:
    plan, dtypes = made_plan(dtype=dtype), {layer: maps.dtype for layer, maps in layers.items()}
    layouts = store_layout(SIZES, len(CLASSES), dtype, BATCH, layers=layers)
    identity = plan.identity | {"list of layers": json.dumps(dtypes)}
    return replace(plan, layouts=layouts, layer_dtypes=dtypes, identity=identity)


def layered_rows(layers=LAYERS) -> dict[str, np.ndarray]:
    """Every array of a made store, by path, maps of earlier layers in float32."""
    draws = np.random.default_rng(1)
    drawn = {layer: draws.normal(size=(N, *maps.shape)).astype(np.float32) for layer, maps in layers.items()}
    return made_rows() | {f"train/layers/{layer}": maps for layer, maps in drawn.items()}


def make(where: Path | Bucket, layers=LAYERS, resume: bool = False, n_blocks: int | None = None) -> None:
    """Write a store, or the first blocks of one, batch by batch."""
    rows = layered_rows(layers)
    names = [*FILLED, *(f"layers/{layer}" for layer in layers)]
    with write_store(where, layered_plan(layers), resume=resume, overwrite=False) as writer:
        fill(writer, {p: v for p, v in rows.items() if p.removeprefix("train/") not in names})
        for begin, end in writer.missing("train")[:n_blocks]:
            for start in range(begin, end, BATCH):
                part = slice(start, min(start + BATCH, end))
                writer.write("train", start, {name: rows[f"train/{name}"][part] for name in names})
        if n_blocks is None:
            writer.finish()


def assert_close(store: FeatureStore, layers=LAYERS) -> None:
    """Maps are those that were written, but for the rounding of their dtypes."""
    rows = layered_rows(layers)
    for layer, maps in layers.items():
        expected, found = rows[f"train/layers/{layer}"], store.read_feature_map(layer=layer)
        assert found.dtype == computing_dtype(maps.dtype)
        off = np.abs(found.astype(np.float32) - expected)
        most = {"float32": 0, "bfloat16": 2**-8 * np.abs(expected), "int8": 0.51 * 4.5 / 127}[maps.dtype]
        assert (off <= most).all()
        picked = [N - 1, 0, 7, 0]
        np.testing.assert_array_equal(store.feature_map(picked, layer=layer), found[picked])
        np.testing.assert_array_equal(store.read_feature_map(9, 21, layer), found[9:21])
    np.testing.assert_array_equal(store.read_feature_map(), rows["train/feature_map"])


@pytest.mark.parametrize(("name", "layers"), [("s.zarr", LAYERS), ("s.h5", LAYERS), ("s.h5", WITHOUT_CODEC)])
def test_a_store_with_layers_is_read_verified_and_resumed_to_the_same_bytes(name, layers):
    Path("other").mkdir()
    make(Path(name), layers)
    store = FeatureStore(Path(name))
    assert (store.attributes["schema_version"], store.layers) == (2, tuple(layers))
    assert len({store.block_rows(f"train/{of}") for of in (*FILLED, "layers/stem", "layers/layer2")}) == 1
    assert 1 < len(store.arrays["checksum/train/layers/stem"].read()) == len(store.maps("layer2.0").scale)
    assert_close(store, layers)
    assert list(verify(store, QUIET)) == []
    make(Path("other", name), layers, n_blocks=2)
    make(Path("other", name), layers, resume=True)
    assert contents(Path("other", name)) == contents(Path(name))


def test_another_list_of_layers_is_not_resumed():
    make(Path("s.zarr"), n_blocks=1)
    fewer = {layer: maps for layer, maps in LAYERS.items() if layer != "stem"}
    other = LAYERS | {"stem": LayerMaps((6, 5, 2), "float16")}
    before = contents(Path("s.zarr.unfinished"))
    for layers in (fewer, other):
        with pytest.raises(StoreError, match="another list of layers"):
            make(Path("s.zarr"), layers, resume=True)
    with (
        pytest.raises(StoreError, match=r"another list of layers .* than now \(None\)"),
        write_store(Path("s.zarr"), made_plan(), resume=True, overwrite=False),
    ):
        pass
    assert contents(Path("s.zarr.unfinished")) == before


@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_flipped_bit_of_a_layer_is_found(layer):
    make(Path("s.zarr"))
    shard = Path("s.zarr", "train", "layers", layer, "c", "0", "0", "0", "0")
    content = bytearray(shard.read_bytes())
    content[3] ^= 64
    shard.write_bytes(content)
    faults = [fault.array for fault in verify(FeatureStore(Path("s.zarr")), QUIET)]
    assert faults == [f"train/layers/{layer}"]


def test_what_is_wrong_though_its_checksum_is_right_is_found(monkeypatch):
    rows = layered_rows()
    rows["train/layers/stem"][13, 2, 1, 0] = np.nan
    monkeypatch.setattr(f"{__name__}.layered_rows", lambda layers: rows)
    make(Path("s.zarr"))
    store = FeatureStore(Path("s.zarr"))
    assert [fault.array for fault in verify(store, QUIET)] == ["train/layers/stem"]
    with pytest.raises(StoreError, match="train/layers/stem has NaN or infinite features in row 13"):
        store.read_feature_map(layer="stem")


def damage(change) -> None:
    make(Path("s.zarr"))
    root = Path("s.zarr", "zarr.json")
    content = json.loads(root.read_text())
    change(content["attributes"])
    root.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda of: of.update(schema_version=3), "schema version 3, of a newer tailcache"),
        (lambda of: of.pop("layers"), "layers does not name"),
        (lambda of: of["layers"].update(stem="int4"), "maps of dtype 'int4'"),
        (lambda of: of["layers"].update(stem="float16"), "train/layers/stem is float32"),
        (lambda of: of["layers"].update(layer3="float16"), "lacks train/layers/layer3"),
    ],
)
def test_attributes_that_do_not_fit_are_refused_in_one_line(change, says):
    damage(change)
    refuse("store", "info", "s.zarr", says=["s.zarr", says])


def test_conversions_keep_the_layers_each_in_its_dtype_and_codec():
    make(Path("s.zarr"))
    convert(ConvertConfig("s.zarr", "s.h5"), QUIET)
    convert(ConvertConfig("s.h5", "back.zarr"), QUIET)
    for path in ("s.h5", "back.zarr"):
        store = FeatureStore(Path(path))
        assert store.layer_dtypes == {layer: maps.dtype for layer, maps in LAYERS.items()}
        assert_close(store)
        assert list(verify(store, QUIET)) == []
    was, now = FeatureStore(Path("s.zarr")), FeatureStore(Path("back.zarr"))
    assert was.arrays.keys() == now.arrays.keys()
    for name, array in was.arrays.items():
        assert type(array) is type(now.arrays[name])
        if name != "checksum/metadata":
            np.testing.assert_array_equal(array.read(), now.arrays[name].read())
    assert now.provenance["converted"][-1]["layers"]["layer2.0"] == {"dtype": "int8", "codec": "zstd"}


def test_a_dtype_for_all_maps_rounds_the_layers_too():
    float_layers = {"stem": LAYERS["stem"], "layer2": LAYERS["layer2"]}
    make(Path("s.zarr"), float_layers)
    convert(ConvertConfig("s.zarr", "r.zarr", dtype="int8", codec="lz4", block_mib=1), QUIET)
    store = FeatureStore(Path("r.zarr"))
    assert store.layer_dtypes == {"stem": "int8", "layer2": "int8"}
    assert all(store.maps(layer).array.codec == "lz4" for layer in (None, *store.layers))
    assert [name for name in store.arrays if is_scale(name)] == [
        "train/feature_map_scale",
        "train/layer_scales/layer2",
        "train/layer_scales/stem",
    ]
    assert list(verify(store, QUIET)) == []
    expected = layered_rows(float_layers)["train/layers/stem"]
    assert np.abs(store.read_feature_map(layer="stem") - expected).max() <= 0.51 * 4.5 / 127
    make(Path("mixed.zarr"))
    says = ["mixed.zarr: its maps of layer2.0 are int8", "cannot be undone"]
    refuse("store", "convert", "mixed.zarr", "t.zarr", "--dtype", "bfloat16", says=says)
    refuse("store", "convert", "mixed.zarr", "t.zarr", "--block-mib", 1, says=["int8 maps have scales"])


def test_a_number_beyond_the_range_of_a_dtype_is_found_in_a_layer(monkeypatch):
    rows = layered_rows()
    rows["train/layers/stem"][13, 2, 1, 0] = 7e4
    monkeypatch.setattr(f"{__name__}.layered_rows", lambda layers: rows)
    make(Path("s.zarr"), {"stem": LAYERS["stem"]})
    says = ["train/layers/stem: row 13 has a feature of magnitude 70000", "float16 ends at"]
    refuse("store", "convert", "s.zarr", "t.h5", "--dtype", "float16", says=says)


def test_a_bucket_holds_layers_too(bucket):
    make(bucket, n_blocks=1)
    make(bucket, resume=True)
    store = FeatureStore(bucket)
    assert_close(store)
    assert list(verify(store, QUIET)) == []


def test_store_info_names_the_layers():
    make(Path("s.h5"))
    said = succeed("store", "info", "s.h5").stdout
    assert "train/layers/layer2.0" in said
    assert "maps of earlier layers: stem (float32), layer2.0 (int8), layer2 (bfloat16)" in said
    assert json.loads(succeed("store", "info", "s.h5", "--json").stdout)["layers"]["layer2"] == "bfloat16"
