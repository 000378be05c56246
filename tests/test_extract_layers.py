"""Maps of earlier layers in a store: what the network's own modules return, for every training image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, succeed, write_images
from rich.progress import Progress
from torch import nn

import tailcache
from extract.checkpoints.restore import Restored, restore
from extract.images.transforms import normalise
from extract.inference.passes import by_class
from extract.inner_layers.found import find_layers
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = Progress(disable=True)
ON = ["--device", "cpu"]
CPU = torch.device("cpu")


class Changed(nn.Module):
    """A network that changes what its stages return in place, and runs one of them twice."""

    def __init__(self, n_classes: int = 3):
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.last, self.twice = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.tokens, self.both, self.unused = nn.Flatten(), Both(), nn.Conv2d(6, 6, 1)
        self.swapped, self.squeezed, self.laid = Swapped(), nn.AdaptiveAvgPool2d(1), LaidOut()
        self.mask, self.head = Mask(), nn.Linear(8, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        maps = self.stem(images)
        nn.functional.relu_(maps)
        maps = self.twice(self.twice(maps))
        self.tokens(maps), self.both(maps), self.swapped(maps), self.squeezed(maps), self.mask(maps)
        maps = self.laid(self.stage(maps).mul_(2)).sub_(1)
        maps = nn.functional.relu_(self.last(maps))
        return self.head(maps.mean((2, 3)))


class Both(nn.Module):
    """Returns a pair."""

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The maps, twice."""
        return maps, maps


class Mask(nn.Module):
    """Returns no features."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) bool."""
        return maps > 0


class Swapped(nn.Module):
    """Returns channels last."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C)."""
        return maps.permute(0, 2, 3, 1)


class LaidOut(nn.Module):
    """Returns the same numbers in the order of memory in which a store has them."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W)."""
        return maps.contiguous(memory_format=torch.channels_last)


def changed(n_classes: int = 3) -> nn.Module:
    """The factory of that network."""
    return Changed(n_classes)


def trained(arch: str, *more: object, size: int = 32) -> Path:
    write_images(Path("photos"))
    image_size = ["--image-size", size, "--epochs", 1, "--batch-size", 8]
    succeed("train", "--root", "photos", "--arch", arch, *image_size, *more, "--out", "phase1", *ON)
    return Path("phase1/checkpoint.pt")


def extracted(ckpt: Path, layers: str | None, *more: object, store: str = "feats.zarr") -> FeatureStore:
    named = [] if layers is None else ["--layers", layers]
    succeed("extract", "--ckpt", ckpt, "--store", store, *named, "--batch-size", 8, *more, *ON)
    return FeatureStore(Path(store))


def by_hooks(network: nn.Module, images: torch.Tensor, names: list[str]) -> dict[str, np.ndarray]:
    """What modules of a network return, 8 images at a time, as (N, H, W, C)."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: found[name].append(output.clone())
        )
    with torch.inference_mode():
        for batch in images.split(8):
            network(batch)
    return {name: torch.cat(maps).permute(0, 2, 3, 1).numpy() for name, maps in found.items()}


def training_images(restored: Restored) -> torch.Tensor:
    return normalise(by_class(restored.dataset.train).images, restored.transform)


@pytest.mark.parametrize(
    ("arch", "options", "names"),
    [
        ("resnet10", [], {"layer1": "layer1", "layer3": "layer3", "relu": "relu"}),
        ("resnet20", ["--width", 4], {"layer1": "features.5", "layer2": "features.8", "2": "features.2"}),
        ("shufflenet_v2_x0_5", [], {"stage2": "stage2", "stage3.1": "stage3.1"}),
        ("test_extract_layers:changed", [], dict.fromkeys(["stem", "stage", "laid", "last"])),
    ],
)
def test_maps_are_those_that_hooks_on_the_authors_network_see(arch, options, names):
    """To the bit in fp32; in-place calls behind a module change nothing of what it returned."""
    names = {layer: path or layer for layer, path in names.items()}
    ckpt = trained(arch, *options)
    named = ["--arch", arch] if ":" in arch else []
    store = extracted(ckpt, ",".join(names), "--dtype", "float32", *named)
    restored = restore(ckpt, None, QUIET, arch=arch if named else None)
    assert set(store.layers) == set(names)
    own = restored.network.original().eval()
    expected = by_hooks(own, training_images(restored), list(names.values()))
    for layer, path in names.items():
        np.testing.assert_array_equal(store.read_feature_map(layer=layer), expected[path], strict=True)
        rows = [5, 0, 17, 5]
        np.testing.assert_array_equal(store.feature_map(rows, layer=layer), expected[path][rows])
    alone = extracted(ckpt, None, "--dtype", "float32", *named, store="alone.zarr")
    for name in ("pooled", "feature_map", "cam"):
        of_both = (of.arrays[f"train/{name}"].read() for of in (store, alone))
        np.testing.assert_array_equal(*of_both, strict=True)
    assert (store.attributes["schema_version"], alone.attributes["schema_version"]) == (2, 1)


def test_layers_are_stored_in_the_order_in_which_they_run_and_the_last_one_is_the_feature_map():
    ckpt = trained("resnet20", "--width", 4)
    store = extracted(ckpt, " layer3 , layer2,layer1")
    assert store.layers == ("layer1", "layer2")
    assert json.loads(json.dumps(store.provenance["identity"]))["list of layers"] == (
        "layer1 float16, layer2 float16"
    )
    assert [store.maps(name).shape[1:] for name in store.layers] == [(32, 32, 4), (16, 16, 8)]
    alone, named = (extracted(ckpt, layers, store=f"{layers}.zarr") for layers in (None, "layer3"))
    assert named.attributes["schema_version"] == 1
    assert named.arrays.keys() == alone.arrays.keys()
    for name, array in alone.arrays.items():
        if name != "checksum/metadata":  # provenance says what was asked
            np.testing.assert_array_equal(named.arrays[name].read(), array.read())
    with pytest.raises(UserError, match=r"has no maps of layer 'layer3'.*holds layer1, layer2"):
        store.feature_map([0], layer="layer3")
    with pytest.raises(UserError, match="holds none of earlier layers"):
        alone.feature_map([0], layer="layer1")


def test_layers_that_cannot_be_stored_are_refused_in_one_line():
    arch = "test_extract_layers:changed"
    ckpt = trained(arch)
    command = ["extract", "--ckpt", ckpt, "--arch", arch, *ON, "--layers"]
    for layers, says in {
        "layer2": ["--layers layer2: no such layer; expected some of stem, stage, laid, last"],
        "stem,twice": ["--layers twice: runs 2 times"],
        "both": ["--layers both: returns a tuple", "(B, C, H, W)"],
        "mask": ["--layers mask: returns numbers of bool"],
        "tokens": ["--layers tokens: returns (2, 1536)"],
        "swapped": ["--layers swapped: returns (2, 16, 16, 6)", "channels come last"],
        "squeezed": ["--layers squeezed: returns one position"],
        "unused": ["--layers unused: does not run"],
        "head": ["--layers head: does not run"],
        "stem,stage, stem": ["names stem twice"],
        "stem,,stage": ["empty name"],
        " ": ["empty name"],
        "stem layer2": ["--layers stem layer2: no such layer"],
    }.items():
        refuse(*command, layers, says=says)
    for dtype, says in {
        "stem=int4": ["--layer-dtype stem=int4", "one of float16, float32"],
        "stem": ["expected a layer and its dtype"],
        "stage=int8": ["stage is not stored", "--layers names stem"],
    }.items():
        refuse(*command, "stem", "--layer-dtype", dtype, says=says)
    refuse(*command[:-1], "--layer-dtype", "stem=int8", says=["name the layer in --layers"])
    twice = ["--layer-dtype", "stem=int8", "--layer-dtype", "stem=float16"]
    refuse(*command, "stem", *twice, says=["stem has int8 already"])


def test_a_stage_and_its_last_block_are_one_map():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = tailcache.load_network(trained("resnet10"))
    with pytest.raises(UserError, match=r"layer2.0: returns the map of layer2 too"):
        find_layers(network, ["layer2", "layer2.0"], 32, CPU)
    assert find_layers(network, ["layer4.0"], 32, CPU) == {}
    assert find_layers(network, ["layer4", "layer2.0"], 32, CPU) == {"layer2.0": (4, 4, 128)}
    with pytest.raises(UserError, match=r"layer9: .* conv1, bn1, relu, maxpool, layer1.* more inside"):
        find_layers(network, ["layer9"], 32, CPU)


def test_the_python_api_takes_layers():
    store = tailcache.extract(
        trained("resnet20", "--width", 4),
        "feats.h5",
        layers="layer2",
        layer_dtype=("layer2=int8",),
        device="cpu",
    )
    assert store.layers == ("layer2",)
    assert store.maps("layer2").dtype == "int8"
    assert store.feature_map([3], layer="layer2").dtype == np.float16
    assert store.feature_map([3]).shape == (1, 8, 8, 16)
