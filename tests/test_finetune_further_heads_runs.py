"""Runs whose head is not one FC layer: kept, read, used and handed out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed, write_images
from made_interrupt import finetune_interrupted

import tailcache as tc
from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from extract.checkpoints.restore import restore_network
from extract.heads.in_network import HeadModule
from extract.heads.kinds import KINDS, kind_of, layer_of, saved_parts
from finetune.config import FinetuneConfig
from finetune.train import finetune

pytestmark = pytest.mark.usefixtures("in_tmp_path")
METHODS = {"disalign": "aligned", "oltr": "meta-embedding", "fslwf": "cosine"}
FAST = {"iterations": 60, "eval_every": 20, "window": 8, "device": "cpu", "batch_size": 32}


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))


def run_of(store: Path, method: str, quiet, **more) -> tc.Run:
    return finetune(FinetuneConfig(str(store), "run", method=method, **FAST | more), quiet)


@pytest.mark.parametrize("method", METHODS)
def test_the_run_holds_the_head_and_the_network_with_it(feature_store, method, quiet):
    """Its predictions are those of the head on the store's features, and of the network that is deployed."""
    run, test = run_of(feature_store, method, quiet), tc.open_store(feature_store).read("test")
    found = torch.load("run/head.pt", weights_only=True)
    assert found.pop("kind") == METHODS[method]
    read = tc.read_run("run").head
    assert kind_of(read) == METHODS[method]
    assert all(torch.equal(found[name], part) for name, part in read._asdict().items())
    logits = read.logits(torch.tensor(test.pooled))
    assert np.array_equal(logits.argmax(1).numpy(), run.predictions["prediction"])
    content = torch.load("run/checkpoint.pt", weights_only=True)
    assert content["format_version"] == 2
    network = restore_network(load_checkpoint(Path("run/checkpoint.pt")), Path("run/checkpoint.pt"))
    assert isinstance(network.classifier, HeadModule)
    torch.testing.assert_close(network.classify(torch.tensor(test.pooled)).detach(), logits)
    counted = succeed("evaluate", "--ckpt", "run/checkpoint.pt", "--device", "cpu", "--json").stdout
    assert json.loads(counted)["n_correct"] == run.summary["n_correct"]
    assert not np.array_equal(run.predictions["prediction"], run.predictions["phase1"])


def test_a_run_with_an_fc_layer_is_written_as_before(feature_store, quiet):
    run_of(feature_store, "plain", quiet)
    assert torch.load("run/head.pt", weights_only=True).keys() == {"weight", "bias"}
    assert torch.load("run/checkpoint.pt", weights_only=True)["format_version"] == 1
    weight, bias = tc.read_run("run").head
    assert (weight.shape, bias.shape) == ((10, weight.shape[1]), (10,))


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_in_the_same_bytes_with_the_best_head(feature_store, method, quiet):
    """The best head so far is in the saved state, and it is not the last one."""
    config = FinetuneConfig(str(feature_store), "run", method=method, keep="best", lr=0.5, **FAST)
    whole = finetune(replace(config, out="whole"), quiet)
    finetune_interrupted(config, lambda n_windows, start: start >= 45)
    resumed = finetune(replace(config, resume=True), quiet)
    for name in ("head.pt", "metrics.csv", "predictions.csv"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()
    last = finetune(replace(config, out="last", keep="last"), quiet)
    assert (whole.summary["kept_iteration"] == 60) == all(map(torch.equal, whole.head, last.head))


def test_a_state_of_an_older_version_holds_the_best_layer_as_a_list(feature_store, quiet):
    config = FinetuneConfig(str(feature_store), "run", method="plain", keep="best", lr=0.5, **FAST)
    whole = finetune(replace(config, out="whole"), quiet)
    finetune_interrupted(config, lambda n_windows, start: start >= 45)
    state = torch.load("run.unfinished.pt", weights_only=True)
    best = state["state"]["courses"][0]["best"]
    best["layer"] = [best["layer"]["weight"], best["layer"]["bias"]]
    torch.save(state, "run.unfinished.pt")
    resumed = finetune(replace(config, resume=True), quiet)
    assert (whole.path / "head.pt").read_bytes() == (resumed.path / "head.pt").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_deployed_as_every_format_that_holds_the_computation(feature_store, method, quiet):
    run_of(feature_store, method, quiet)
    for name in ("state-dict", "safetensors"):
        says = [f"--format {name}: the head of run/checkpoint.pt is not one FC layer", "torchscript"]
        refuse("export", "--ckpt", "run/checkpoint.pt", "--format", name, "--out", "n.pt", says=says)
        assert not list(Path().glob("n.pt*"))
    network = restore_network(load_checkpoint(Path("run/checkpoint.pt")), Path("run/checkpoint.pt"))
    succeed("export", "--ckpt", "run/checkpoint.pt", "--format", "torchscript", "--out", "n.ts")
    images = random(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load("n.ts")(images), network(images))


FACTORY = """
from torch import nn

def net(n_classes=3):
    pooling, head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, n_classes, 1)
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), pooling, head, nn.Flatten())
"""


def test_a_head_in_the_place_of_a_convolution(quiet):
    """Trained, predicting with pictures, and handed out: the authors' network has a convolution there."""
    Path("nets_with_heads.py").write_text(FACTORY)
    root = write_images(Path("photos"))
    arch = ["--arch", "nets_with_heads:net"]
    data = ["--root", root, "--image-size", "16", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]
    succeed("train", *data, *arch, "--out", "p")
    named = ["--ckpt", "p/checkpoint.pt", *arch]
    succeed("extract", *named, "--store", "feats.zarr", "--dtype", "float32", "--device", "cpu")
    few = ["--iterations", "20", "--batch-size", "8", "--device", "cpu"]
    succeed("finetune", "--store", "feats.zarr", "--out", "run", "--method", "oltr", *few)
    used = ["--ckpt", "run/checkpoint.pt", *arch]
    succeed(
        "predict", *used, "photos/test", "--out", "p.csv", "--top", "1", "--cam", "cams", "--device", "cpu"
    )
    frame, expected = pd.read_csv("p.csv"), pd.read_csv("run/predictions.csv")
    names = tc.open_store("feats.zarr").class_names
    by_image = dict(zip(expected["image"], expected["prediction"], strict=True))
    assert {str(Path(row.path).relative_to("photos")): row.class_1 for row in frame.itertuples()} == {
        image: names[prediction] for image, prediction in by_image.items()
    }
    assert len(list(Path("cams").rglob("*.png"))) == len(frame)
    succeed("export", *used, "--format", "torchscript", "--out", "n.ts")
    assert torch.jit.load("n.ts")(random(2, 3, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_of_a_head_is_read_as_the_same_head(kind):
    shapes = KINDS[kind].shapes(4, 6)
    layer = KINDS[kind](**{name: random(*shape) for name, shape in shapes.items()})
    read = layer_of(saved_parts(layer))
    assert type(read) is KINDS[kind]
    assert all(map(torch.equal, read, layer))
    assert ("kind" in saved_parts(layer)) == (kind != "fc")
    for name in shapes:
        for damage in (random(3, 5, 2), layer._asdict()[name].double(), 7, None):
            with pytest.raises((ValueError, AttributeError)):
                layer_of(saved_parts(layer) | {name: damage})
        with pytest.raises(ValueError, match="no head has"):
            layer_of({part: value for part, value in saved_parts(layer).items() if part != name})
    with pytest.raises(ValueError, match="no head has"):
        layer_of(saved_parts(layer) | {"kind": "another"})


def test_checkpoints_whose_head_fits_nothing(feature_store, quiet):
    run_of(feature_store, "oltr", quiet)
    good = load_checkpoint(Path("run/checkpoint.pt"))
    names = [name for name in good.state if name.startswith("classifier.")]
    without = {name: part for name, part in good.state.items() if name != "classifier.centroids"}
    narrow = good.state | {
        name: random(part.shape[0], 5) if part.ndim == 2 and "selector" not in name else part
        for name, part in good.state.items()
        if name in names
    }
    narrow |= {"classifier.selector_weight": random(5, 5), "classifier.selector_bias": random(5)}
    for state, says in ((without, "which no head has"), (narrow, "(10, 5)")):
        save_checkpoint(replace(good, state=state), Path("bad.pt"))
        refuse(
            "evaluate",
            "--ckpt",
            "bad.pt",
            "--device",
            "cpu",
            says=["bad.pt: has the weights of another", says],
        )


@pytest.mark.parametrize("method", ["oltr", "fslwf"])
def test_a_class_without_rows_has_no_mean_to_recall(feature_store, method, quiet, monkeypatch):
    from finetune.training.statistics import TrainStatistics

    init = TrainStatistics.__init__

    def one_empty(self, *given):
        init(self, *given)
        self.class_counts = self.class_counts.copy()
        self.class_counts[7] = 0

    with monkeypatch.context() as patch:
        patch.setattr(TrainStatistics, "__init__", one_empty)
        says = [f"--method {method}: class 7 has no training rows", "use another method"]
        command = ["finetune", "--store", feature_store, "--out", "run", "--device", "cpu"]
        refuse(*command, "--method", method, says=says)
    assert not Path("run").exists()


def test_a_sweep_keeps_such_heads(feature_store):
    few = ["--seeds", "1", "--heads", "--iterations", "20", "--batch-size", "32", "--device", "cpu"]
    succeed(
        "sweep", "--store", feature_store, "--out", "s", "--method", "disalign", "--grid", "lr=0.01,0.1", *few
    )
    kept = [layer_of(torch.load(file, weights_only=True)) for file in Path("s/heads").glob("*.pt")]
    assert [kind_of(head) for head in kept] == ["aligned", "aligned"]
