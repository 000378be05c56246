"""`store plan`: times computed by hand, views, output, and errors."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_input import refuse, snapshot, succeed
from made_forecast import QUICK, TINY, chosen, planned

from cli import main
from extract.images.transforms import view_batch
from finetune.commands.options import build, option_fields
from finetune.config import FinetuneConfig
from finetune.forecast import finetune_throughput as throughput
from finetune.forecast.compression import Packing
from finetune.forecast.config import ForecastConfig
from finetune.forecast.disk import DiskSpeed
from finetune.forecast.finetune_throughput import Pace, measure_pace
from finetune.loading.residency import HeldMaps
from finetune.training.head_pool import HeadPool
from store.layout import ArrayLayout

pytestmark = pytest.mark.usefixtures("in_tmp_path")

CPU, fused = torch.device("cpu"), HeldMaps.fused


def test_the_model_of_time_by_hand(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def packing(maps: np.ndarray, dtype: str, layout: ArrayLayout) -> Packing:
        return Packing(1.0 if layout.codec == "none" else 0.5, 2.0, 3.0)

    disk = DiskSpeed(write=1e3, read=2e3, read_random=500.0, read_cached=1e9, n_bytes=0)
    monkeypatch.setattr("finetune.forecast.extraction.measure_disk", lambda *_: disk)
    monkeypatch.setattr("finetune.forecast.extraction.images_per_second", lambda *_: 0.1)
    monkeypatch.setattr("finetune.forecast.extraction.measure_packing", packing)
    monkeypatch.setattr("finetune.forecast.forecast.measure_pace", lambda *_: Pace(0.25, 0.125))
    monkeypatch.setattr("finetune.forecast.forecast.memory_for_maps", lambda _: 2 * 18 * 1024 - 1)
    options = ["--dataset", "imagefolder", "--root", small_root, *TINY, "--iterations", 200]
    content = planned(*options, "--image-size", 16, "--store", "s.h5")
    sizes = {"N": 18, "H": 4, "W": 4, "C": 16, "D": 16, "T": len("train/ape/0.png")}
    assert content["sizes"]["train"] == sizes  # 512 bytes a map in float16
    by_name = {(c["dtype"], c["codec"]): c for c in content["choices"]}
    plain, packed = by_name["float16", "none"], by_name["float16", "zstd"]
    n_images, writing = 18 + 18, plain["n_bytes"] / 1e3 + 18 * 2
    assert writing < n_images / 0.1
    assert plain["extract_seconds"] == pytest.approx(n_images / 0.1)  # bound by computing
    assert packed["extract_seconds"] == pytest.approx(n_images / 0.1 + packed["n_bytes"] / 1e3)
    computing = 200 * 0.25 + 2 * 18 * 0.125  # on test, before and after; there is no val
    assert plain["finetune_seconds"] == pytest.approx(18 * (512 / 2e3 + 3) + computing)
    assert packed["finetune_seconds"] == pytest.approx(18 * (256 / 2e3 + 3) + computing)
    wide = by_name["float32", "none"]
    assert (plain["in_memory"], wide["in_memory"]) == (True, False)
    assert wide["finetune_seconds"] == pytest.approx(
        computing
    )  # equal classes: no tail, and nothing is fused
    monkeypatch.setattr("finetune.forecast.extraction.images_per_second", lambda *_: 1e6)
    content = planned(*options, "--image-size", 16, "--store", "s.zarr")
    assert chosen(content)["extract_seconds"] == pytest.approx(chosen(content)["n_bytes"] / 1e3 + 18 * 2)


def test_streamed_maps_are_those_of_fused_rows_and_their_donors(small_root, monkeypatch):
    """Of 4, 2 and 1 images the 1 is the tail: a seventh of the 32 rows of a batch that may be replaced."""
    disk = DiskSpeed(write=1e12, read=1e12, read_random=500.0, read_cached=1e12, n_bytes=0)
    monkeypatch.setattr("finetune.forecast.extraction.measure_disk", lambda *_: disk)
    monkeypatch.setattr("finetune.forecast.extraction.measure_packing", lambda *_: Packing(1.0, 0.0, 3.0))
    monkeypatch.setattr("finetune.forecast.forecast.measure_pace", lambda *_: Pace(0.0, 0.0))
    monkeypatch.setattr("finetune.forecast.forecast.memory_for_maps", lambda _: 0)
    options = ["--dataset", "imagefolder", "--root", small_root, *TINY, "--imbalance-factor", 3]
    content = planned(*options, "--image-size", 16, "--iterations", 200, "--views", 2, "--batch-size", 2)
    assert content["class_counts"] == [4, 2, 1]
    n_maps = 200 * 2 * 32 / 7
    assert chosen(content)["finetune_seconds"] == pytest.approx(n_maps * (512 / 500 + 3))


def test_a_step_is_that_of_the_default_method(monkeypatch):
    """On average as many rows are fused as in a run with these options, with its loss and weight decay."""
    asked, trained = [], []
    monkeypatch.setattr(
        HeldMaps, "fused", lambda maps, vectors, *rows: asked.append(vectors) or fused(maps, vectors)
    )
    monkeypatch.setattr(
        throughput, "HeadPool", lambda heads, *rest: trained.extend(heads) or HeadPool(heads, *rest)
    )
    lengths, counts = {"N": 1000, "H": 2, "W": 2, "C": 8}, np.array([500, 300, 100, 100])
    assert measure_pace(lengths, counts, "float16", CPU, 0.001).iteration > 0
    assert len(asked[0]) / (32 * 64) == pytest.approx(0.2, abs=0.03)  # of 32 places in 64 iterations
    config = FinetuneConfig(store="").resolved(4)
    (head,) = trained
    assert (head.weight_decay, head.lr) == (config.weight_decay, config.lr)
    np.testing.assert_allclose(head.loss.shift, config.tau * np.log(counts / 1000), rtol=1e-6)
    measure_pace(lengths, np.array([500, 500]), "float16", CPU, 0.001)
    assert len(asked[-1]) == 0


def test_classes_without_a_tail_are_warned_of(small_root: Path) -> None:
    """As many images of each of three: all hold 80 % of them, and finetune would refuse the store."""
    options = ["--dataset", "imagefolder", "--root", small_root, "--image-size", 16, *TINY]
    (warning,) = planned(*options)["warnings"]
    assert warning.startswith("3 classes: all are needed to hold 80 % of the images, so finetune has no tail")
    assert planned(*options, "--imbalance-factor", 3)["warnings"] == []


def test_views_scale_rows_bytes_and_times(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DiskSpeed(write=1e12, read=2e3, read_random=500.0, read_cached=1e9, n_bytes=0)
    monkeypatch.setattr("finetune.forecast.extraction.measure_disk", lambda *_: disk)
    monkeypatch.setattr("finetune.forecast.extraction.images_per_second", lambda *_: 0.1)
    monkeypatch.setattr("finetune.forecast.extraction.measure_packing", lambda *_: Packing(1.0, 0.0, 3.0))
    monkeypatch.setattr("finetune.forecast.forecast.measure_pace", lambda *_: Pace(0.25, 0.125))
    monkeypatch.setattr("finetune.forecast.forecast.memory_for_maps", lambda _: 2 * 54 * 512)
    options = ["--dataset", "imagefolder", "--root", small_root, *TINY, "--iterations", 200]
    options += ["--image-size", 16, "--store", "s.h5", "--batch-size", 6]
    one, three = (chosen(planned(*options, "--views", n)) for n in (1, 3))
    content = planned(*options, "--views", 3)
    assert (content["views"], content["sizes"]["train"]["N"], content["sizes"]["test"]["N"]) == (3, 54, 18)
    row_bytes = 4 * 4 * 16 * 2 + 4 * 4 * 2 + 16 * 4 + 4 + 8 + 2  # map, CAM, pooled, label, index and view
    row_bytes += 16 + len("train/ape/0.png")  # digest and name
    assert three["n_bytes"] - one["n_bytes"] == 2 * 18 * row_bytes
    assert three["map_bytes"] == 3 * one["map_bytes"]
    assert one["extract_seconds"] == pytest.approx((18 + 18) / 0.1)
    assert three["extract_seconds"] == pytest.approx((3 * 18 + 18) / 0.1)
    reading = 2 * 18 * (512 / 2e3 + 3)  # of maps that a store with one view lacks
    assert three["finetune_seconds"] - one["finetune_seconds"] == pytest.approx(reading)
    text = succeed("store", "plan", *QUICK, *options, "--views", 3).stdout
    assert "3 classes, 18 training images in 3 views each (maps 4×4×16), 18 test\n" in text
    assert "0 views/s, decoding included" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 100


def test_views_are_measured_as_they_are_extracted(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is extracted in all views, and images per second count them."""
    shown = []

    def noted(images, transform, seeds):
        shown.append(seeds)
        return view_batch(images, transform, seeds)

    monkeypatch.setattr("extract.images.batches.view_batch", noted)
    seconds = itertools.count()
    monkeypatch.setattr(
        "finetune.forecast.extract_throughput.time", SimpleNamespace(perf_counter=lambda: next(seconds))
    )
    options = ["--dataset", "imagefolder", "--root", small_root, "--image-size", 16, *TINY]
    content = planned(*options, "--views", 5)
    assert content["images_per_second"] == 8 * 5  # the first 8 images in a second
    assert content["n_sampled"] == 7 * 5  # as many images as give 32 views
    augmented = sum(int((seeds != -1).sum()) for seeds in shown)
    first = sum(int((seeds == -1).sum()) for seeds in shown)
    assert augmented == 4 * (first - 8)  # batch norms settled on 8 images


def test_maps_with_nothing_to_fuse_are_warned_of(small_root: Path) -> None:
    options = ["--dataset", "imagefolder", "--root", small_root, "--image-size", 8, "--width", 4]
    result = succeed("store", "plan", *QUICK, *options, "--arch", "resnet18-cifar")
    assert "tailcache: warning: resnet18-cifar: its feature maps are 1×1" in result.stderr


def test_json_names_every_choice_and_what_it_rests_on(small_root: Path) -> None:
    options = ["--dataset", "imagefolder", "--root", small_root, "--image-size", 16, *TINY]
    before = snapshot(Path())
    content = planned(*options, "--dtype", "bfloat16", "--codec", "lz4", "--iterations", 5)
    assert snapshot(Path()) == before
    assert len({(c["dtype"], c["codec"]) for c in content["choices"]}) == len(content["choices"]) == 15
    assert (chosen(content)["dtype"], chosen(content)["codec"]) == ("bfloat16", "lz4")
    assert content["disk"].keys() == {"write", "read", "read_random", "read_cached", "n_bytes"}
    assert all(value > 0 for value in content["disk"].values())
    assert (content["weights"], content["trained"]) == ("initial weights", False)
    assert 8 <= content["n_sampled"] <= 18
    assert (content["arch"], content["device"], content["n_classes"]) == ("resnet8", "cpu", 3)
    assert content["iterations"] == 5
    for choice in content["choices"]:
        assert choice["fits"]
        assert choice["exact"] == (choice["codec"] == "none")
        assert choice["extract_seconds"] > 0
        assert choice["finetune_seconds"] > 0


def test_a_checkpoint_says_what_there_is(small_ckpt: Path) -> None:
    text = succeed("store", "plan", *QUICK, "--ckpt", small_ckpt).stdout
    assert text.startswith(
        "3 classes, 18 training images (maps 4×4×16), 18 test\nresnet8, trained for 1 epochs"
    )
    assert "* float16      none" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--store", "feats.txt"], "feats.txt: unknown container '.txt'"),
        (["--store", "notes/feats.zarr"], "notes: is a file"),
        (["--store", "photos.zarr"], "photos.zarr: already exists and is not a store that may be replaced"),
        (["--arch", "resnet33"], "--arch resnet33: unknown"),
        (["--arch", "resnet50", "--width", 8], "--width 8: resnet50 has a fixed width"),
        (["--image-size", 64], "--image-size 64: digits images are 32×32"),
        (["--dataset", "imagefolder"], "--dataset imagefolder needs --root"),
        (["--dataset", "imagefolder", "--root", "none"], "none: no such folder"),
        (["--ckpt", "none.pt"], "none.pt: expected a checkpoint file, found nothing"),
        (["--ckpt", "c.pt", "--arch", "resnet32"], "--arch: the checkpoint determines network and images"),
        (["--ckpt", "c.pt", "--imbalance-factor", 10], "leave out --imbalance-factor or --ckpt"),
        (["--seconds", 0], "--seconds 0.0: must be 0.01 or more"),
        (["--seconds", "nan"], "--seconds nan: must be 0.01 or more"),
        (["--batch-size", 0], "--batch-size 0: must be 1 or more"),
        (["--iterations", 0], "--iterations 0: must be 1 or more"),
        (["--device", "tpu"], "--device tpu: unknown"),
        (["--layers", "layer1,layer1"], "names layer1 twice"),
        (["--layers", "layer7"], "--layers layer7: no such layer; expected some of layer1, layer2"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_refusals(options: list[object], says: str) -> None:
    Path("notes").write_text("a file")
    Path("photos.zarr").mkdir()
    Path("photos.zarr/thesis.txt").write_text("not ours")
    refuse("store", "plan", *options, says=[says])


def test_options_are_the_configs() -> None:
    command = main.commands["store"].commands["plan"]
    options = {parameter.name for parameter in command.params} - {"as_json"}
    assert options == {field.name for field, *_ in option_fields(ForecastConfig)}
    values = command.make_context("plan", []).params
    values.pop("as_json")
    assert build(ForecastConfig, values) == ForecastConfig()
