"""Extractions with earlier layers: views, interruptions, pieces of a batch, fitted classifiers, samples."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, run, succeed
from dying import die_at_commit, in_child
from made_fitted import options, write_pairs, write_weights
from made_store import contents
from made_views import BATCH, V, command, expected_view, slow_seed
from rich.progress import Progress

from extract.checkpoints.restore import restore
from extract.config import ExtractConfig
from extract.device import Compute
from extract.dump import extract
from extract.images.transforms import normalise
from extract.inference.passes import by_class
from extract.inner_layers.captured import CapturedLayers
from extract.rows import check_rows, computed_rows
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("several_blocks")
QUIET = Progress(disable=True)
LAYERS = ["--layers", "layer1,layer2"]
CPU = torch.device("cpu")


def test_maps_of_a_view_are_the_layers_of_the_image_that_it_shows(small_ckpt):
    done = succeed(
        *command(small_ckpt, "views.zarr", "--layers", "layer1,layer2,layer3", "--dtype", "float32")
    )
    for layer, shape in (("layer1", "16, 16, 4"), ("layer2", "8, 8, 8")):
        told = (
            rf"views.zarr/train/layers/{layer}: feature maps \(N, H, W, C\) \((\d+), {shape}\), {V} views of"
        )
        assert int(re.search(told, done.stdout)[1]) == 18 * V
    assert "note: --layers layer3: is the last layer, which adds nothing" in done.stderr
    store, restored = FeatureStore(Path("views.zarr")), restore(small_ckpt, None, QUIET)
    images, transform = by_class(restored.dataset.train), restored.transform
    seed, stages = restored.checkpoint.config["seed"], {"layer1": "3", "layer2": "4"}
    for row in (0, V + 1, 7 * V + 2, 18 * V - 1):
        i, view = divmod(row, V)
        image = images.images[i]
        if view:
            drawn = slow_seed(seed, int(images.sample_index[i]), view)
            image = expected_view(images, i, transform, drawn)
        with torch.inference_mode():
            maps = normalise(image[None], transform)
            for number, module in enumerate(restored.network.eval().features):
                maps = module(maps)
                for layer, name in stages.items():
                    if str(number) == name:
                        found = torch.from_numpy(store.feature_map([row], layer=layer))
                        torch.testing.assert_close(found, maps.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["s.zarr", "s.h5"])
def test_a_killed_extraction_resumes_to_the_same_bytes(small_ckpt, name):
    Path("other").mkdir()
    asked = [*LAYERS, "--layer-dtype", "layer1=int8"]
    succeed(*command(small_ckpt, name, *asked))
    killed = command(small_ckpt, f"other/{name}", *asked)

    def die() -> None:
        die_at_commit(4)
        run(*killed)

    assert in_child(die) == 9
    for other in ([], ["--layers", "layer1"], LAYERS, [*LAYERS, "--layer-dtype", "layer1=float32"]):
        again = command(small_ckpt, f"other/{name}", *other, "--resume")
        refuse(*again, says=["was started with another list of layers (layer1 int8, layer2 float16)"])
    succeed(*killed, "--resume")
    ours, theirs = FeatureStore(Path(name)), FeatureStore(Path("other", name))
    assert len(theirs.arrays["checksum/train/layers/layer1"].read()) > 3
    for path, array in ours.arrays.items():
        if path != "checksum/metadata":  # another folder's path is in the provenance
            np.testing.assert_array_equal(array.read(), theirs.arrays[path].read(), strict=True)
    kept = contents(Path("other", name))
    succeed(*killed, "--resume")
    assert contents(Path("other", name)) == kept
    for other in ([], ["--layers", "layer1"]):
        again = command(small_ckpt, f"other/{name}", *other, "--resume")
        refuse(*again, says=["another list of layers"])


def test_batches_in_pieces_give_the_maps_of_whole_batches(small_ckpt, monkeypatch):
    asked = {"dtype": "float32", "batch_size": 7, "layers": "0,layer2", "device": "cpu"}
    extract(ExtractConfig(str(small_ckpt), "whole.zarr", **asked), QUIET)
    monkeypatch.setattr("extract.inference.pieces.images_at_once", lambda *of: 2)
    extract(ExtractConfig(str(small_ckpt), "pieces.zarr", **asked), QUIET)
    whole, pieces = (FeatureStore(Path(path)) for path in ("whole.zarr", "pieces.zarr"))
    assert whole.layers == ("0", "layer2")
    for layer in (None, *whole.layers):
        np.testing.assert_allclose(
            pieces.read_feature_map(layer=layer), whole.read_feature_map(layer=layer), rtol=1e-4, atol=1e-5
        )


def test_a_sample_of_a_store_is_compared_in_all_its_layers(small_ckpt):
    succeed(*command(small_ckpt, "s.zarr", *LAYERS, "--layer-dtype", "layer1=int8", "--codec", "zstd"))
    succeed("store", "convert", "s.zarr", "s.h5", "--dtype", "int8")
    proof = ["--sample", 40, "--ckpt", small_ckpt, "--device", "cpu"]
    for path in ("s.zarr", "s.h5"):
        assert "agree" in succeed("store", "verify", path, *proof).stdout
    with pytest.MonkeyPatch.context() as patch:
        keep = CapturedLayers._keep
        patch.setattr(CapturedLayers, "_keep", lambda self, *of: keep(self, *of[:-1], of[-1].flip(0)))
        succeed(*command(small_ckpt, "wrong.zarr", *LAYERS))
    assert "sound" in succeed("store", "verify", "wrong.zarr").stdout  # its numbers fit together
    found = run("store", "verify", "wrong.zarr", *proof)
    assert (found.exit_code, "layers/layer1, layers/layer2: not what" in found.stdout) == (1, True)


def test_a_fitted_classifier_and_its_cams_are_those_without_layers():
    weights, photos = write_weights(Path()), write_pairs(Path("photos"))
    fit = [*options(weights, photos), "--weight-decay", 1]
    refuse("extract", *fit, "--layers", "layer1", says=["--layers layer1: no such layer", "blocks.1"])
    for name, layers in (("alone.zarr", []), ("s.zarr", ["--layers", "blocks.0,blocks.1"])):
        succeed("extract", *fit, "--store", name, *layers)
    alone, both = (FeatureStore(Path(name)) for name in ("alone.zarr", "s.zarr"))
    assert both.layers == ("blocks.0", "blocks.1")
    np.testing.assert_array_equal(both.classifier[0], alone.classifier[0])
    np.testing.assert_array_equal(both.read_cam(), alone.read_cam())
    assert "sound" in succeed("store", "verify", "s.zarr").stdout


def test_numbers_that_a_dtype_does_not_hold_are_refused_by_layer(small_ckpt):
    restored = restore(small_ckpt, None, QUIET)
    with torch.no_grad():
        restored.network.features[0].weight.mul_(1e6)
    dtypes = {"0": "float16"}
    compute = Compute(CPU, "fp32", BATCH, 0)
    images = by_class(restored.dataset.train)
    batches = computed_rows(restored.network, images, restored.transform, compute, "float32", dtypes)
    *_, rows = next(batches)
    with pytest.raises(
        UserError, match="maps of 0 exceed the range of float16; pass --layer-dtype 0=float32"
    ):
        check_rows(rows, "train", "float32", dtypes)
    assert check_rows(rows, "train", "float32", {"0": "float32"}).keys() == {
        *("pooled", "feature_map", "cam", "layers/0")
    }
    rows["extremes of layers/0"][0, 1] = np.inf
    with pytest.raises(UserError, match="maps of 0 are not finite"):
        check_rows(rows, "train", "float32", {"0": "float32"})


def test_phase_2_is_the_same_with_layers_or_without(small_ckpt):
    runs = []
    for name, layers in (("alone.zarr", []), ("both.zarr", LAYERS)):
        succeed(*command(small_ckpt, name, *layers))
        few = ["--confusing-classes", 2, "--head-ratio", 0.4, "--iterations", 3, "--device", "cpu"]
        succeed("finetune", "--store", name, "--out", f"{name}-run", *few)
        runs.append(torch.load(f"{name}-run/head.pt", weights_only=True))
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
