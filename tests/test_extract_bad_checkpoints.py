"""Checkpoints, and options of `extract` and `evaluate`, that are refused."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from bad_input import (
    refuse,
    succeed,
)

from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def random_bytes(path: Path, _: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(1000))


def a_text_file(path: Path, _: Path) -> None:
    path.write_text("epoch,loss\n1,2.3\n")


def an_empty_file(path: Path, _: Path) -> None:
    path.touch()


def a_folder(path: Path, _: Path) -> None:
    path.mkdir()


def a_missing_file(path: Path, _: Path) -> None:
    pass


def a_truncated_checkpoint(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:5000])


def a_truncated_pickle(path: Path, _: Path) -> None:
    path.write_bytes(pickle.dumps({"epoch": [1, 2.0, "three"]}, protocol=2)[:-6])


class Code:
    """Unpickling it creates a folder."""

    def __reduce__(self) -> tuple:
        return Path.mkdir, (Path("the-code-ran"),)


def a_pickle_with_code(path: Path, _: Path) -> None:
    path.write_bytes(pickle.dumps(Code(), protocol=2))


def a_torch_file_with_code(path: Path, _: Path) -> None:
    torch.save({"format": "tailcache-checkpoint", "format_version": 1, "state": Code()}, path)


def another_programs_state(path: Path, _: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}, path)


def a_tensor(path: Path, _: Path) -> None:
    torch.save(torch.zeros(3), path)


def a_newer_version(path: Path, good: Path) -> None:
    torch.save(torch.load(good, weights_only=True) | {"format_version": 99}, path)


def one_without_its_data(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    del content["dataset"]
    torch.save(content, path)


def another_networks_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    save_checkpoint(replace(checkpoint, network=checkpoint.network | {"arch": "resnet32"}), path)


def another_widths_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    save_checkpoint(replace(checkpoint, network=checkpoint.network | {"width": 8}), path)


def a_name_that_is_no_text(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    torch.save(content | {"state": content["state"] | {7: torch.zeros(3)}}, path)


def nan_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    bias = torch.full_like(checkpoint.state["classifier.bias"], torch.nan)
    save_checkpoint(replace(checkpoint, state=checkpoint.state | {"classifier.bias": bias}), path)


UNSAFE = ["not a checkpoint that can be read safely", "expected a checkpoint.pt written by `train`"]
FOREIGN = ["not a checkpoint of this program", "expected a checkpoint.pt written by `train`"]


def altered(**changes: object) -> Callable[[Path, Path], None]:
    """A checkpoint with one part replaced."""

    def make(path: Path, good: Path) -> None:
        torch.save(torch.load(good, weights_only=True) | changes, path)

    return make


OTHER_WEIGHTS = ["has the weights of another network than", "for 3 classes", "train again"]


@pytest.mark.parametrize("command", ["extract", "evaluate"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (random_bytes, UNSAFE),
        (a_name_that_is_no_text, ["7 of its state is not a tensor", "train again"]),
        (a_text_file, UNSAFE),
        (an_empty_file, UNSAFE),
        (a_truncated_checkpoint, UNSAFE),
        (a_truncated_pickle, UNSAFE),
        (a_pickle_with_code, UNSAFE),
        (a_torch_file_with_code, UNSAFE),
        (a_folder, ["expected a checkpoint file, found a folder", "`train` writes one"]),
        (a_missing_file, ["expected a checkpoint file, found nothing", "`train` writes one"]),
        (another_programs_state, [*FOREIGN, "conv1.weight"]),
        (a_tensor, [*FOREIGN, "Tensor"]),
        (a_newer_version, ["a checkpoint, of version 99; this program reads 1"]),
        (one_without_its_data, ["a checkpoint, but it lacks dataset", "written by `train`"]),
        (another_networks_weights, [*OTHER_WEIGHTS, "resnet32"]),
        (another_widths_weights, [*OTHER_WEIGHTS, "resnet8"]),
        (altered(network={"bad": 1}), ["its NetworkConfig is damaged", "train again"]),
        (altered(dataset=None), ["its DatasetConfig is damaged", "train again"]),
        (altered(transform={"size": 3}), ["its Transform is damaged", "train again"]),
        (altered(class_names=None), ["its class_names is a NoneType, not a list", "train again"]),
        (altered(class_names=[]), ["has 0 class names and 3 counts", "train again"]),
        (altered(class_counts=[1]), ["has 3 class names and 1 counts", "train again"]),
        (altered(state=None), ["its state is a NoneType, not a dict", "train again"]),
        (altered(state={"a": 1}), ["a of its state is not a tensor", "train again"]),
        (nan_weights, ["classifier.bias holds NaN or infinite weights", "train again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_checkpoint_is_refused(
    command: str, make: Callable[[Path, Path], None], says: list[str], small_ckpt: Path
) -> None:
    path = Path("given.pt")
    make(path, small_ckpt)
    refuse(command, "--ckpt", path, "--device", "cpu", says=["given.pt: ", *says])
    assert not Path("the-code-ran").exists()


def test_the_code_in_a_pickle_would_run(small_ckpt: Path) -> None:
    """The positive control for the tests above."""
    a_pickle_with_code(Path("given.pt"), small_ckpt)
    pickle.loads(Path("given.pt").read_bytes())
    assert Path("the-code-ran").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--store feats.npz", ["feats.npz: unknown container '.npz'", "ending in .zarr or .h5"]),
        ("--store feats", ["feats: unknown container '(no suffix)'", "ending in .zarr"]),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--workers -1", ["--workers -1: must be 0 or more"]),
        ("--dtype float8", ["--dtype", "'float8' is not one of", "'float16'"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu"]),
        ("--device cuda:99", ["--device cuda:99: this machine has", "use auto or cpu"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_extract_option_is_refused(small_ckpt: Path, options: str, says: list[str]) -> None:
    refuse("extract", "--ckpt", small_ckpt, "--device", "cpu", *options.split(), says=says)


def test_fine_tuned_checkpoint_is_no_phase_1(digits_run: Path) -> None:
    path = digits_run / "checkpoint.pt"
    says = [f"{path}: its FC layer was fine-tuned", "extract with the checkpoint.pt that `train` wrote"]
    refuse("extract", "--ckpt", path, "--device", "cpu", says=says)
    succeed("evaluate", "--ckpt", path, "--device", "cpu")


def test_another_programs_zarr_group_is_kept(small_ckpt: Path) -> None:
    zarr.create_group("feats.zarr", attributes={"format": "a year of climate"})
    command = ["extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu", "--overwrite"]
    refuse(
        *command, says=["feats.zarr: already exists and is not a store that may be replaced", "name another"]
    )


def test_existing_store_is_kept_without_overwrite(small_ckpt: Path, small_store: Path) -> None:
    shutil.copytree(small_store, "feats.zarr")
    command = ["extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu"]
    refuse(*command, says=["feats.zarr: already exists", "--overwrite", "or name another"])
    an_empty_file(Path("empty.pt"), small_ckpt)
    with_bad_ckpt = ["extract", "--ckpt", "empty.pt", "--store", "feats.zarr", "--overwrite"]
    refuse(*with_bad_ckpt, says=["empty.pt"])  # and the store stays
    succeed(*command, "--overwrite")


@pytest.mark.parametrize("store", ["feats.zarr", "feats.h5"])
def test_extraction_that_fails_before_the_first_rows_leaves_nothing(
    small_ckpt: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.drafts.journal.CommitLog.append", full_disk)
    says = [f"{store}: the disk is full after 0 blocks", "make room", "run it again"]
    refuse("extract", "--ckpt", small_ckpt, "--store", store, "--device", "cpu", says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--split val", ["--split val: this data set has train, test", "train with --val-per-class"]),
        ("--split all", ["--split", "'all' is not one of", "'test'"]),
        (
            "--shot-rule mine",
            ["--shot-rule mine: expected decoupling, oltr, or two whole numbers such as 200,50"],
        ),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu"]),
        ("--device cuda:99", ["--device cuda:99: this machine has", "use auto or cpu"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_evaluate_option_is_refused(small_ckpt: Path, options: str, says: list[str]) -> None:
    refuse("evaluate", "--ckpt", small_ckpt, "--device", "cpu", *options.split(), says=says)
