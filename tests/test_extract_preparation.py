"""How images reach a network: as its authors prepare them where it is pre-trained, or as options say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import FOLDER, TINY, refuse, succeed, write_images
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms.v2 import functional as TF

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import NetworkConfig, TrainConfig
from extract.dataset import list_dataset
from extract.images.transforms import IMAGENET_MEAN, IMAGENET_STD, evaluation_image, normalise, training_image
from extract.networks.registry import preparation
from extract.sources.config import DatasetConfig
from extract.training.preparation import transform_for


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos"))


def prepared(photos, quiet, arch: str, weights: str | None = None, size: int | None = None, **options):
    """The transform of a training on images that stay files."""
    network = NetworkConfig(arch, weights=weights)
    size = size or preparation(network).image_size
    dataset = DatasetConfig("imagefolder", str(photos))
    config = TrainConfig(network=network, dataset=dataset, image_size=size, **options)
    return transform_for(config, list_dataset(dataset, quiet))


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Smooth shapes and fine stripes, 400×310."""
    y, x = np.mgrid[:310, :400]
    channels = [120 + 100 * np.sin(x / 9), 255 * ((x // 3 + y // 2) % 2), (x * y / 490) % 256]
    return Image.fromarray(np.stack(channels, axis=2).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("arch", "weights"),
    [
        ("efficientnet_b3", "DEFAULT"),
        ("resnet50", "DEFAULT"),
        ("resnet50", "IMAGENET1K_V1"),
        ("swin_v2_t", "DEFAULT"),
    ],
)
def test_a_pre_trained_network_sees_what_torchvision_shows_it(arch, weights, photos, photograph, quiet):
    transform = prepared(photos, quiet, arch, weights)
    own = get_model_weights(arch)[weights].transforms()
    seen, expected = (
        normalise(evaluation_image(TF.pil_to_tensor(photograph), transform)[None], transform)[0],
        own(photograph),
    )
    assert seen.shape == expected.shape
    apart = (seen - expected).abs().mean()
    assert apart < 0.01  # of tensors or of images, resizing rounds otherwise
    for change in (
        {"resize": round(transform.resize * 1.1)},
        {"interpolation": "bilinear" if transform.interpolation == "bicubic" else "bicubic"},
        {"mean": (0.5, 0.5, 0.5)},
    ):
        other = replace(transform, **change)
        assert (
            normalise(evaluation_image(TF.pil_to_tensor(photograph), other)[None], other)[0] - expected
        ).abs().mean() > 5 * apart


def test_networks_of_timm_are_prepared_by_their_own_config(photos, quiet):
    found = prepared(photos, quiet, "timm:efficientnet_lite3", "DEFAULT")
    assert (found.image_size, found.resize, found.interpolation) == (300, 331, "bicubic")  # crop_pct 0.904
    found = prepared(photos, quiet, "timm:inception_v3", "DEFAULT")
    assert (found.image_size, found.mean, found.std) == (299, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    half = prepared(photos, quiet, "timm:efficientnet_lite3", "DEFAULT", size=150)
    assert (half.image_size, half.resize) == (150, 166)


def test_a_network_without_weights_is_prepared_as_before(photos, quiet):
    for arch, size in {"resnet50": 224, "resnet18": 224}.items():
        found = prepared(photos, quiet, arch)
        assert (found.image_size, found.resize, found.interpolation) == (size, None, "bilinear")
        assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_options_win(photos, photograph, quiet):
    options = {"mean": "0.1,0.2,0.3", "std": "0.4,0.5,1", "crop": 0.8, "interpolation": "bicubic"}
    found = prepared(photos, quiet, "efficientnet_b0", "DEFAULT", size=160, **options)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 1.0))
    assert (found.resize, found.interpolation) == (200, "bicubic")
    linear = replace(found, interpolation="bilinear")
    seen = TF.pil_to_tensor(photograph)
    assert not torch.equal(training_image(seen, found, 3), training_image(seen, linear, 3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mean", "0.5"], "--mean 0.5: expected three numbers from 0 to 1, as in 0.5,0.5,0.5"),
        (["--mean", "0.5,0.5,128"], "--mean 0.5,0.5,128: expected three numbers"),
        (["--std", "0.5,0,0.5"], "--std 0.5,0,0.5: expected three numbers above 0, at most 1"),
        (["--std", "a,b,c"], "--std a,b,c: expected three numbers"),
        (["--std", "nan,1,1"], "--std nan,1,1: expected three numbers"),
        (["--crop", "1.5", "--image-size", "96"], "--crop 1.5: must be a share from 0.1 to 1"),
        (["--crop", "0.9", "--image-size", "64"], "--crop: images of 64 pixels are resized as a whole"),
        (["--interpolation", "bicubic"], "--interpolation: images of 32 pixels are resized as a whole"),
    ],
)
def test_preparation_that_cannot_be_is_refused(options, says, photos, in_tmp_path):
    refuse("train", "--root", photos, "--arch", "resnet8", *options, "--out", "r", says=[says])


def test_options_are_in_the_checkpoint_and_kept_on_resuming(photos, in_tmp_path):
    options = ["--mean", "0.1,0.2,0.3"]
    succeed("train", *FOLDER, "--root", photos, *TINY, *options, "--out", "p")
    transform = load_checkpoint(Path("p/checkpoint.pt")).transform
    assert transform["mean"] == (0.1, 0.2, 0.3)
    assert transform["std"] != IMAGENET_STD  # of the images, which are in memory
    refuse(
        "train", "--resume", "--out", "p", "--mean", "0.2,0.2,0.3", says=["mean was 0.1,0.2,0.3, now it is"]
    )
