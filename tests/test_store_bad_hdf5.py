"""HDF5 stores that are refused, and names and places where a store cannot be written."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_input import FEW_CLASSES, QUICK, refuse, run, succeed
from made_store import make_store

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture(scope="session")
def hdf5_store(small_ckpt: Path) -> Path:
    """The HDF5 store of `small_ckpt`. Do not change it."""
    path = small_ckpt.parents[1] / "feats.h5"
    succeed("extract", "--ckpt", small_ckpt, "--store", path, "--device", "cpu")
    return path


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    """Damage done through h5py."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    damage.__name__ = change.__name__
    return damage


def put(file: h5py.File, name: str, value: np.ndarray) -> None:
    """Replace an array by another."""
    del file[name]
    file[name] = value


@edit
def newer_version(file: h5py.File) -> None:
    file.attrs["schema_version"] = 99


@edit
def newer_arrays(file: h5py.File) -> None:
    file.attrs["schema_version"] = 3
    del file["train/feature_map"]
    file.create_dataset("train/feature_map", (3, 3), "complex64", chunks=(2, 1), compression="gzip")


@edit
def another_programs_file(file: h5py.File) -> None:
    for name in list(file):
        del file[name]
    for name in list(file.attrs):
        del file.attrs[name]
    file["weights"] = np.ones(3)


@edit
def unfinished(file: h5py.File) -> None:
    file.attrs.modify("complete", np.bool_(False))


@edit
def not_said_to_be_complete(file: h5py.File) -> None:
    del file.attrs["complete"]


@edit
def no_cam(file: h5py.File) -> None:
    del file["train/cam"]


@edit
def no_test_split(file: h5py.File) -> None:
    del file["test"]


@edit
def no_classifier(file: h5py.File) -> None:
    del file["classifier"]


@edit
def no_class_names(file: h5py.File) -> None:
    del file.attrs["class_names"]


@edit
def class_names_cut_short(file: h5py.File) -> None:
    file.attrs["class_names"] = np.bytes_(file.attrs["class_names"][:-3])


@edit
def no_provenance(file: h5py.File) -> None:
    del file.attrs["provenance"]


@edit
def nan_classifier(file: h5py.File) -> None:
    file["classifier/weight"][2, 1] = np.nan


@edit
def nan_pooled(file: h5py.File) -> None:
    file["test/pooled"][4, 3] = np.inf


@edit
def nan_map(file: h5py.File) -> None:
    file["train/feature_map"][17, 3, 0, 5] = np.nan


@edit
def nan_cam(file: h5py.File) -> None:
    file["train/cam"][9, 0, 1] = np.nan


@edit
def labels_out_of_order(file: h5py.File) -> None:
    file["train/label"][2] = 2


@edit
def a_label_beyond_the_classes(file: h5py.File) -> None:
    file["test/label"][-1] = 3


@edit
def labels_in_doubles(file: h5py.File) -> None:
    put(file, "test/label", file["test/label"][:].astype("float64"))


@edit
def cams_of_fewer_rows(file: h5py.File) -> None:
    put(file, "train/cam", file["train/cam"][:7])


@edit
def maps_in_gzip(file: h5py.File) -> None:
    maps = file["train/feature_map"][:]
    del file["train/feature_map"]
    file.create_dataset("train/feature_map", data=maps, compression="gzip")


@edit
def finished_twice(file: h5py.File) -> None:
    put(file, "finished", np.array([1, 2]))


def cut_in_the_rows(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def cut_at_the_start(path: Path) -> None:
    os.truncate(path, 100)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def missing(path: Path) -> None:
    path.unlink()


NOT_HDF5 = ["not an HDF5 store", "expected one written by `extract`"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing, ["no such store", "`extract --store feats.h5` writes one"]),
        (emptied, NOT_HDF5),
        (cut_at_the_start, NOT_HDF5),
        (cut_in_the_rows, [*NOT_HDF5, "truncated"]),
        (another_programs_file, ["not a feature store", "`extract` writes one"]),
        (
            newer_version,
            ["schema version 99, of a newer tailcache, this program reads 1", "update tailcache"],
        ),
        (newer_arrays, ["schema version 3, of a newer tailcache, this program reads 1", "update tailcache"]),
        (unfinished, ["was never finished", "extract again with --overwrite"]),
        (not_said_to_be_complete, ["was never finished", "extract again with --overwrite"]),
        (no_cam, ["lacks train/cam", "extract again"]),
        (no_test_split, ["lacks test/label", "extract again"]),
        (no_classifier, ["lacks classifier/weight", "extract again"]),
        (no_class_names, ["class_names is not a list of two or more names", "extract again"]),
        (class_names_cut_short, NOT_HDF5),
        (no_provenance, ["provenance does not say what made it", "extract again"]),
        (nan_classifier, ["classifier holds NaN", "extract again"]),
        (nan_pooled, ["test/pooled has NaN or infinite features in row 4", "extract again"]),
        (nan_map, ["train/feature_map has NaN or infinite features in row 17", "extract again"]),
        (nan_cam, ["train/cam has NaN or infinite features in row 9", "extract again"]),
        (labels_out_of_order, ["train/label is damaged", "extract again"]),
        (a_label_beyond_the_classes, ["test/label has classes 0 to 3, expected 0 to 2", "extract again"]),
        (labels_in_doubles, ["test/label is float64 (18,), expected int32 N = (18,)", "extract again"]),
        (cams_of_fewer_rows, ["train/cam is float16 (7, 4, 4), expected float16 N, H, W = (18, 4, 4)"]),
        (maps_in_gzip, ["train/feature_map has another layout than `extract` writes", "extract again"]),
        (finished_twice, ["finished is int64 (2,), expected int64 1 = (1,)", "extract again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hdf5_store_is_refused(
    hdf5_store: Path, small_ckpt: Path, damage: Callable[[Path], None], says: list[str]
) -> None:
    shutil.copy(hdf5_store, "feats.h5")
    damage(Path("feats.h5"))
    command = ["finetune", "--store", "feats.h5", "--ckpt", small_ckpt, *QUICK, *FEW_CLASSES]
    refuse(*command, says=["feats.h5: ", *says])


def test_the_hdf5_store_is_taken_undamaged(hdf5_store: Path, small_ckpt: Path) -> None:
    succeed("finetune", "--store", hdf5_store, "--ckpt", small_ckpt, "--out", "fsa", *QUICK, *FEW_CLASSES)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float8_e4m3"])
def test_nan_in_maps_of_other_dtypes(small_ckpt: Path, dtype: str) -> None:
    """NaN itself or, for integers, a NaN scale: every map of the block is lost with it."""
    store = ["--store", "feats.h5", "--ckpt", small_ckpt]
    succeed("extract", *store, "--device", "cpu", "--dtype", dtype)
    command = ["finetune", *store, "--out", "fsa", *QUICK, *FEW_CLASSES]
    succeed(*command)
    with h5py.File("feats.h5", "r+") as file:
        if dtype == "int8":
            file["train/feature_map_scale"][0, 2] = np.nan
        else:
            file["train/feature_map"][5, 1, 1, 0] = {"bfloat16": 0x7FC0, "float8_e4m3": 0x7F}[dtype]
    row = 0 if dtype == "int8" else 5
    says = [f"train/feature_map has NaN or infinite features in row {row}", "extract again"]
    refuse(*command, "--overwrite", says=says)


@pytest.mark.parametrize("command", ["info", "verify"])
def test_names_that_mislead(command: str, small_store: Path, hdf5_store: Path) -> None:
    shutil.copytree(small_store, "zarr.h5")
    shutil.copy(hdf5_store, "hdf5.zarr")
    Path("empty.h5").mkdir()
    for name in ("zarr.h5", "empty.h5"):
        refuse("store", command, name, says=[f"{name}: is a folder, expected an HDF5 file", "*.zarr"])
    refuse(
        "store", command, "hdf5.zarr", says=["hdf5.zarr: is a file, expected the folder of a zarr", "*.h5"]
    )
    shutil.move("zarr.h5", "moved")  # a name without a suffix does not mislead
    succeed("store", command, "moved")


@pytest.mark.parametrize("store", ["feats.zarr", "feats.h5"])
@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_extract_into_a_place_that_may_not_be_written(
    small_ckpt: Path, store: str, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File modes do not bind root, so the system's error is simulated."""
    make_folder = os.mkdir

    def refused(path: str | os.PathLike, *args: object, **kwargs: object) -> None:
        if "feats" in os.fspath(path):
            raise OSError(reason, os.strerror(reason), os.fspath(path))
        make_folder(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refused)
    command = ["extract", "--ckpt", small_ckpt, "--store", store, "--device", "cpu"]
    refuse(
        *command, says=[f"{store}.unfinished: cannot be created ({os.strerror(reason)})", "name another path"]
    )


def test_extract_where_no_folder_can_be(small_ckpt: Path) -> None:
    """No folder can be created in `/proc`, not even by root, nor `/proc` itself on a system without it."""
    command = ["extract", "--ckpt", small_ckpt, "--store", "/proc/feats.zarr", "--device", "cpu"]
    refuse(*command, says=["/proc/feats.zarr.unfinished: cannot be created", "name another path"])


@pytest.mark.parametrize("name", ["s.zarr", "s.h5"])
def test_newer_stores_are_not_verified(name: str) -> None:
    make_store(Path(name))
    if name == "s.h5":
        newer_version(Path(name))
    else:
        root = Path(name, "zarr.json")
        root.write_text(root.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    result = run("store", "verify", name)
    assert (result.exit_code, "of a newer tailcache" in result.stderr) == (2, True)
