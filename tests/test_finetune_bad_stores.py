"""Stores that Phase II refuses: damaged, foreign, unfinished, or without their checkpoint."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from bad_input import FEW_CLASSES, QUICK, refuse, succeed

from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def a_missing_store(path: Path) -> None:
    shutil.rmtree(path)


def an_empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no store")


def another_programs_store(path: Path) -> None:
    shutil.rmtree(path)
    zarr.create_group(path)


def a_bare_array(path: Path) -> None:
    shutil.rmtree(path)
    zarr.create_array(path, shape=(3,), dtype="float32")


def damaged_metadata(path: Path) -> None:
    (path / "zarr.json").write_text("{")


def damaged_array_metadata(path: Path) -> None:
    (path / "train" / "cam" / "zarr.json").write_text("{")


def unfinished(path: Path) -> None:
    del zarr.open_group(path, mode="r+").attrs["complete"]


def newer_version(path: Path) -> None:
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 99


def newer_arrays(path: Path) -> None:
    """With a layout and types that no version so far knows."""
    root = zarr.open_group(path, mode="r+")
    root.attrs["schema_version"] = 3
    root.create_array("train/feature_map", shape=(3, 3), dtype="complex64", chunks=(2, 1), overwrite=True)


def older_version(path: Path) -> None:
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 0


def no_cam(path: Path) -> None:
    shutil.rmtree(path / "train" / "cam")


def no_test_split(path: Path) -> None:
    shutil.rmtree(path / "test")


def no_classifier(path: Path) -> None:
    shutil.rmtree(path / "classifier")


def nan_classifier(path: Path) -> None:
    zarr.open_group(path, mode="r+")["classifier/bias"][0] = np.nan


def a_label_beyond_the_classes(path: Path) -> None:
    zarr.open_group(path, mode="r+")["test/label"][-1] = 10


def a_label_below_zero(path: Path) -> None:
    zarr.open_group(path, mode="r+")["test/label"][0] = -1


def labels_out_of_order(path: Path) -> None:
    zarr.open_group(path, mode="r+")["train/label"][5] = 9


def a_shard_removed(path: Path) -> None:
    shutil.rmtree(path / "train" / "feature_map" / "c")


def a_shard_cut_short(path: Path) -> None:
    shard = next(p for p in (path / "train" / "pooled" / "c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-100])


def a_shard_emptied(path: Path) -> None:
    shard = next(p for p in (path / "test" / "pooled" / "c").rglob("*") if p.is_file())
    shard.write_bytes(b"")


def no_class_names(path: Path) -> None:
    del zarr.open_group(path, mode="r+").attrs["class_names"]


def one_class_name_less(path: Path) -> None:
    attributes = zarr.open_group(path, mode="r+").attrs
    attributes["class_names"] = attributes["class_names"][:-1]


def no_provenance(path: Path) -> None:
    del zarr.open_group(path, mode="r+").attrs["provenance"]


def no_network_in_provenance(path: Path) -> None:
    attributes = zarr.open_group(path, mode="r+").attrs
    attributes["provenance"] = {k: v for k, v in attributes["provenance"].items() if k != "network"}


def a_classifier_of_a_wider_network(path: Path) -> None:
    put(path, "classifier/weight", np.ones((10, 64), np.float32))


def cams_of_fewer_rows(path: Path) -> None:
    put(path, "train/cam", np.ones((100, 8, 8), np.float16))


def labels_in_doubles(path: Path) -> None:
    put(path, "test/label", zarr.open_group(path, mode="r")["test/label"][:].astype("float64"))


def put(path: Path, name: str, value: np.ndarray) -> None:
    """Replace an array by another with our layout."""
    group = zarr.open_group(path, mode="r+")
    group.create_array(
        name, data=value, shards=value.shape, chunks=value.shape, compressors=None, overwrite=True
    )


def nan_pooled(path: Path) -> None:
    zarr.open_group(path, mode="r+")["test/pooled"][7, 3] = np.nan


def nan_map(path: Path) -> None:
    zarr.open_group(path, mode="r+")["train/feature_map"][400, 7, 0, 3] = np.nan


def infinite_cam(path: Path) -> None:
    zarr.open_group(path, mode="r+")["train/cam"][3, 2, 1] = -np.inf


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (a_missing_store, ["no such store", "`extract --store feats.zarr` writes one"]),
        (an_empty_folder, ["not a zarr v3 store", "expected one written by `extract`"]),
        (a_file, ["is a file, expected the folder of a zarr store", "an HDF5 store is named *.h5"]),
        (a_bare_array, ["not a zarr v3 store", "expected one written by `extract`"]),
        (damaged_metadata, ["not a zarr v3 store", "expected one written by `extract`"]),
        (damaged_array_metadata, ["metadata of train/cam are damaged", "extract again"]),
        (another_programs_store, ["not a feature store", "`extract` writes one"]),
        (unfinished, ["was never finished", "extract again with --overwrite"]),
        (newer_version, ["schema version 99, of a newer tailcache, this program reads 1", "extract again"]),
        (newer_arrays, ["schema version 3, of a newer tailcache, this program reads 1", "update tailcache"]),
        (older_version, ["schema version 0, this program reads 1 and 2; extract again"]),
        (no_cam, ["lacks train/cam", "extract again"]),
        (no_test_split, ["lacks test/label", "extract again"]),
        (no_classifier, ["lacks classifier/weight", "extract again"]),
        (nan_classifier, ["classifier holds NaN", "extract again"]),
        (a_label_beyond_the_classes, ["test/label has classes 0 to 10, expected 0 to 9", "extract again"]),
        (a_label_below_zero, ["test/label has classes -1 to 9, expected 0 to 9", "extract again"]),
        (labels_out_of_order, ["train/label is damaged", "extract again"]),
        (a_shard_removed, ["train/feature_map", "extract again"]),
        (
            a_shard_cut_short,
            [
                "train/pooled is damaged (feats.zarr/train/pooled/c/0/0: has",
                "bytes, expected",
                "extract again",
            ],
        ),
        (
            a_shard_emptied,
            ["test/pooled is damaged (feats.zarr/test/pooled/c/0/0: has 0 bytes, expected", "extract again"],
        ),
        (no_class_names, ["class_names is not a list of two or more names", "extract again"]),
        (one_class_name_less, ["classifier/weight is float32 (10, 16), expected float32 K, C = (9, 16)"]),
        (no_provenance, ["provenance does not say what made it", "extract again"]),
        (no_network_in_provenance, ["provenance lacks network", "extract again"]),
        (a_classifier_of_a_wider_network, ["train/pooled is float32", "expected float32 N, C = ", "64)"]),
        (cams_of_fewer_rows, ["train/cam is float16 (100, 8, 8), expected float16 N, H, W = (488, 8, 8)"]),
        (labels_in_doubles, ["test/label is float64 (300,), expected int32 N = (300,)", "extract again"]),
        (nan_map, ["train/feature_map has NaN or infinite features in row 400", "extract again"]),
        (infinite_cam, ["train/cam has NaN or infinite features in row 3", "extract again"]),
        (nan_pooled, ["test/pooled has NaN or infinite features in row 7", "extract again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_store_is_refused(
    feature_store: Path, phase1: Path, damage: Callable[[Path], None], says: list[str]
) -> None:
    shutil.copytree(feature_store, "feats.zarr")
    damage(Path("feats.zarr"))
    command = ["finetune", "--store", "feats.zarr", "--ckpt", phase1, *QUICK]
    refuse(*command, says=["feats.zarr: ", *says])


@pytest.mark.parametrize("shard", [0, 1, 4])
def test_one_missing_shard_is_noticed(small_ckpt: Path, monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    """zarr reads a missing one as zeros; with 18 rows in shards of 4, the last one is half full."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    succeed("extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu", "--batch-size", 4)
    command = ["finetune", "--store", "feats.zarr", "--out", "fsa", *QUICK, *FEW_CLASSES]
    succeed(*command)
    shutil.rmtree(f"feats.zarr/train/feature_map/c/{shard}")
    says = [
        "feats.zarr: train/feature_map is damaged",
        f"feature_map/c/{shard}/0/0/0: is missing",
        "extract again",
    ]
    refuse(*command, "--overwrite", says=says)


def test_store_whose_checkpoint_is_gone(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--root", small_root, "--device", "cpu")
    shutil.move("phase1/checkpoint.pt", "elsewhere.pt")
    command = ["finetune", *QUICK, *FEW_CLASSES, "--store", "feats.zarr"]
    says = [Path("phase1/checkpoint.pt").resolve(), "is not there", "say where it is with --ckpt"]
    refuse(*command, says=says)
    refuse(*command, "--ckpt", "nowhere.pt", says=["nowhere.pt", "is not there", "--ckpt"])
    succeed(*command, "--ckpt", "elsewhere.pt")


def test_store_whose_checkpoint_was_altered(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    path = Path("phase1/checkpoint.pt")
    succeed("extract", "--ckpt", path, "--root", small_root, "--device", "cpu")
    save_checkpoint(replace(load_checkpoint(path), epoch=99), path)
    command = ["finetune", *QUICK, *FEW_CLASSES, "--store", "feats.zarr"]
    says = ["is not the checkpoint that feats.zarr was extracted with", "point --ckpt at that one"]
    refuse(*command, says=[path.resolve(), *says])
    refuse(*command, "--ckpt", path, says=[path, *says])
