"""Fusion after an earlier block: vectors in place, later blocks by the network itself, and refusals."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed
from batches_by_hand import CPU, K, numbers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from extract.checkpoints.checkpoint import load_checkpoint
from extract.checkpoints.restore import restore_network
from extract.config import ExtractConfig
from extract.dump import extract
from extract.networks.parts import Network
from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.loading.later_blocks import LaterBlocks
from finetune.methods.registry import find_sampling
from finetune.mixing.in_place import enlarged
from finetune.sweep.config import SweepConfig
from finetune.sweep.sweep import sweep
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from finetune.training.trainer import LoadedStore, Trainer
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
LAYERS = "layer1,layer2"
FSA = ["--method", "fsa"]


@pytest.fixture(scope="module")
def layered_store(phase1: Path, tmp_path_factory: pytest.TempPathFactory, request) -> Path:
    """The store of `phase1` with maps of two earlier layers, in float32."""
    path = tmp_path_factory.mktemp("layered") / "feats.zarr"
    quiet = request.getfixturevalue("quiet_of_module")
    extract(ExtractConfig(str(phase1), str(path), dtype="float32", device="cpu", layers=LAYERS), quiet)
    return path


@pytest.fixture(scope="module")
def quiet_of_module() -> Any:
    from rich.progress import Progress

    return Progress(disable=True)


def asked(store: Path, **changes: Any) -> FinetuneConfig:
    config = FinetuneConfig(
        str(store), "run", batch_size=32, iterations=6, eval_every=6, device="cpu", method="fsa"
    )
    return replace(config, **changes)


def later(network: nn.Module, layer: str, maps: torch.Tensor) -> torch.Tensor:
    """Pooled features of maps of a layer, by the stages behind it, one after the other."""
    stages = {"layer1": ("layer2", "layer3"), "layer2": ("layer3",)}[layer]
    backbone = network.backbone
    for stage in stages:
        maps = backbone.get_submodule(network.stages.get(stage, stage))(maps)
    return maps.mean((2, 3))


@pytest.mark.parametrize("layer", ["layer1", "layer2"])
@pytest.mark.parametrize("changes", [{}, {"tau_s": 0.4, "gamma_min": 1.0, "seed": 2**32 - 1}], ids=str)
@pytest.mark.parametrize("residency", ["host", "stream"])
def test_maps_changed_in_place_run_through_later_blocks(phase1, layered_store, layer, changes, residency):
    config = asked(layered_store, fuse_after=layer, residency=residency, window=4, **changes).resolved(K)
    store = FeatureStore(layered_store)
    with single_threaded() as threads, torch.inference_mode():
        trainer = Trainer([config], LoadedStore.open(store, "decoupling", CPU, threads))
        windows = [trainer._make(bounds) for bounds in ((0, 4), (4, 6))]
        pooled = torch.cat([window.pooled for window in windows])[..., : store.read("train").pooled.shape[1]]
        network = restore_network(load_checkpoint(phase1), phase1)
        mix = find_sampling(config).draw(plan_inputs(config, store), 0, 6).mix
        maps, cam = store.read_feature_map(layer=layer), store.read_cam().astype(np.float64)
        side = maps.shape[1]
        grown = cam.repeat(side // cam.shape[1], 1).repeat(side // cam.shape[2], 2).reshape(len(cam), -1)
        n_samples = mix.n_samples
        for t in range(6):
            made = []
            for a in range(n_samples):
                tail, donor = int(mix.row[t, a]), int(mix.donor_row[t, a])
                made.append(in_place(config, maps, grown, tail, donor, t, a, n_samples))
            expected = later(network, layer, torch.tensor(np.stack(made)).permute(0, 3, 1, 2))
            found = pooled[t, -n_samples:]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def in_place(config, maps, cam, tail: int, donor: int, t: int, a: int, n_samples: int) -> np.ndarray:
    """A donor's map, some of whose class-specific vectors are the tail row's: number by number."""
    n_positions = cam.shape[1]
    own, of_tail = (np.flatnonzero(cam[row] > config.tau_s) for row in (donor, tail))
    own, of_tail = (found if len(found) else np.arange(n_positions) for found in (own, of_tail))
    u = numbers(config.seed, "gamma", t, n_samples)[a]
    gamma = config.gamma_min + (config.gamma_max - config.gamma_min) * u
    n_replaced = min(max(round(gamma * len(own)), 1), len(own))
    keys, drawn = (
        numbers(config.seed, kind, t, n_samples * n_positions).reshape(n_samples, n_positions)[a]
        for kind in ("order of positions", "vector")
    )
    made = maps[donor].reshape(n_positions, -1).copy()
    for j in np.argsort(keys[: len(own)], kind="stable")[:n_replaced]:
        made[own[j]] = maps[tail].reshape(n_positions, -1)[of_tail[int(drawn[j] * len(of_tail))]]
    return made.reshape(maps.shape[1:])


def test_the_layer_is_what_decides_and_nothing_else(layered_store, quiet):
    """Windows and residency change no bit; the layer does; plans of the last layer are as ever."""
    heads = {}
    for name, changes in {
        "whole": {"fuse_after": "layer2"},
        "windows": {"fuse_after": "layer2", "window": 1, "prefetch": 0},
        "stream": {"fuse_after": "layer2", "residency": "stream", "window": 5},
        "earlier": {"fuse_after": "layer1"},
        "last": {},
    }.items():
        run = finetune(asked(layered_store, out=name, **changes), quiet)
        heads[name] = torch.load(run.path / "head.pt", weights_only=True)["weight"]
        kinds = {"specific", "generic" if name == "last" else "donor_specific"}
        assert {f"empty_{kind}_percent" for kind in kinds} <= run.config["facts"].keys()
    assert torch.equal(heads["whole"], heads["windows"])
    assert torch.equal(heads["whole"], heads["stream"])
    assert not torch.equal(heads["whole"], heads["earlier"])
    assert not torch.equal(heads["whole"], heads["last"])


def test_a_sweep_over_depths_keeps_them_apart(layered_store):
    grid = ["--grid", "fuse_after=none,layer1,layer2", "--seeds", 2, "--select-on", "test"]
    succeed(
        "sweep", "--store", layered_store, "--out", "s", "--iterations", 4, "--device", "cpu", *grid, *FSA
    )
    ranking = pd.read_csv("s/ranking.csv")
    assert sorted(ranking["configuration"]) == ["fsa", "fsa, fuse_after=layer1", "fsa, fuse_after=layer2"]
    assert ranking["n"].tolist() == [2, 2, 2]


def test_maps_of_one_layer_are_held_at_a_time(layered_store):
    """So that --memory bounds them, whatever a sweep varies."""
    store = FeatureStore(layered_store)
    memory = store.maps("layer2").n_bytes * 1.5 / 2**30
    config = asked(layered_store, residency="stream", memory=memory).resolved(K)
    with single_threaded() as threads:
        loaded = LoadedStore.open(store, "decoupling", CPU, threads)
        for layer in (None, "layer2", None, "layer1"):
            loaded.prepare_maps(replace(config, fuse_after=layer))
            assert list(loaded.maps) == list(loaded.residency) == [layer]
    assert loaded.residency["layer1"].rows < store.map_shape[0]


def test_a_network_that_is_not_there_is_told_before_the_first_head(layered_store):
    shutil.copytree(layered_store, "moved.zarr")
    command = ["sweep", "--store", "moved.zarr", "--out", "s", "--iterations", 4, "--device", "cpu", *FSA]
    grid = ["--grid", "fuse_after=none,layer1", "--ckpt", "nowhere.pt"]
    refuse(*command, *grid, says=["nowhere.pt: Phase I's checkpoint", "--fuse-after layer1 runs its later"])


def test_what_cannot_be_fused_there(layered_store, feature_store):
    command = ["--out", "r", "--device", "cpu", "--iterations", 4]
    named = ["finetune", *command, "--store", layered_store, *FSA]
    refuse(
        *named, "--fuse-after", "layer9", says=["--fuse-after layer9: ", "(holds layer1, layer2); name one"]
    )
    without = ["finetune", *command, "--store", feature_store, "--fuse-after", "layer2", *FSA]
    refuse(*without, says=["holds the last layer alone", "extract with --layers layer2"])
    refuse("sweep", *command, "--store", feature_store, "--study", "depth", says=["--fuse-after layer3: "])
    empty = ["sweep", *command, "--store", layered_store, "--grid", "fuse_after=,layer1"]
    refuse(*empty, says=["fuse_after=: expected a name"])
    succeed(*named, "--fuse-after", "none")
    for other in (["--method", "crt"], ["--sampling", "uniform"]):
        said = succeed(*named, *other, "--fuse-after", "layer2", "--overwrite").stderr
        assert "--fuse-after changes nothing for " in said


class Skipping(nn.Module):
    """Stages of which the first also reaches what comes after the second."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (B, 4, H, W)."""
        first = self.first(images)
        return self.last(self.second(first) + 6 * first).relu()


class Counting(nn.Module):
    """Fails where the batch changes on the way."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (B, 4, H, W)."""
        maps = self.last(self.first(images))
        assert len(maps) == len(images)
        return maps


class MadeStore:
    """Maps of a layer and features of a network."""

    def __init__(self, network: Network, layer: str, images: torch.Tensor):
        kept = []
        hook = network.features.get_submodule(layer).register_forward_hook(lambda *seen: kept.append(seen[2]))
        self.pooled = network.pooled(images).detach().numpy()
        hook.remove()
        self._maps = kept[0].detach().permute(0, 2, 3, 1).numpy()

    def read(self, split: str) -> "MadeStore":
        return self

    def feature_map(self, rows: np.ndarray, layer: str) -> np.ndarray:
        return self._maps[rows]


def test_a_network_in_which_more_than_the_maps_counts_is_refused():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        plain = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), nn.Linear(4, 2))
        network = Network(Skipping(), nn.Linear(4, 2))
        counting = Network(Counting(), nn.Linear(4, 2))
    images = torch.randn(6, 3, 8, 8, generator=generator)
    for part in network.parameters():
        part.data = torch.randn(part.shape, generator=generator)
    with pytest.raises(UserError, match=r"--fuse-after second: .* gives features that are \S+ % off"):
        LaterBlocks(network, "second", 8, CPU).check(MadeStore(network, "second", images))
    with pytest.raises(UserError, match="--fuse-after first: running the network from there fails"):
        LaterBlocks(counting, "first", 8, CPU).check(MadeStore(counting, "first", images))
    LaterBlocks(plain, "1", 8, CPU).check(MadeStore(plain, "1", images))
    altered = MadeStore(plain, "1", images)
    altered.pooled = altered.pooled * 1.2
    with pytest.raises(UserError, match="so what comes later depends on more than its maps"):
        LaterBlocks(plain, "1", 8, CPU).check(altered)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 20), st.integers(1, 20))
def test_enlarged_maps_have_the_value_of_the_nearest_position(height, width, to_height, to_width):
    cam = np.arange(height * width, dtype=np.float16).reshape(1, height, width)
    found = enlarged(cam, to_height, to_width)
    assert found.shape == (1, to_height, to_width)
    for i, j in np.ndindex(to_height, to_width):
        row, column = ((i + 0.5) / to_height * height - 0.5), ((j + 0.5) / to_width * width - 0.5)
        nearest = np.abs(np.arange(height) - row).min(), np.abs(np.arange(width) - column).min()
        at = divmod(int(found[0, i, j]), width)
        assert abs(at[0] - row) <= nearest[0] + 1e-9
        assert abs(at[1] - column) <= nearest[1] + 1e-9


def test_each_layer_needs_its_own_room(layered_store, quiet):
    """Maps of an earlier layer are larger than those of the last one: said before any head of a sweep."""
    store = FeatureStore(layered_store)
    room = 50 * store.map_bytes / store.map_shape[0] / 2**30  # an iteration reads 16 of either
    base = asked(layered_store, residency="stream", memory=room, out="sweep", tail_samples=4)
    for layers in ("none,layer1", "layer1,none"):
        with pytest.raises(UserError, match="the maps of one iteration take"):
            sweep(SweepConfig(base, grid=(f"fuse_after={layers}",), seeds=1), quiet, lambda rows: None)
    assert not Path("sweep").exists()
    assert len(sweep(SweepConfig(base, grid=("lr=0.1,0.2",), seeds=1), quiet, lambda rows: None).results) == 2
