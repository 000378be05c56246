"""`store verify --sample` of fitted stores that were converted: sound ones pass, and faults are found."""

from pathlib import Path

import pytest
import torch
from bad_input import run, succeed, write_images
from test_extract_sample import rewrite, swap
from torch import nn

from extract.config import SampleConfig
from extract.proof.sample import compare, draw_sample
from store.reader import FeatureStore

ARCH = f"{__name__}:OffsetNetwork"
DTYPES = {  # of the extraction, and of conversions after it
    "twice": ("float32", "bfloat16", "int8"),
    "to float8": ("bfloat16", "float8_e4m3"),
    "to int8": ("bfloat16", "int8"),
    "to halves": ("float32", "float16"),
    "to another container": ("int8", "int8"),
}


class OffsetNetwork(nn.Module):
    """Features of about 4 that differ little, so that class activation maps tell how these were rounded."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 3, 4, 4), nn.Linear(3, 2)
        with torch.no_grad():
            self.stem.weight.copy_(torch.eye(3)[:, :, None, None] / 16)
            self.stem.bias.fill_(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, 2)."""
        return self.fc(self.stem(images).mean((2, 3)))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores by the dtype that they were extracted in."""
    folder = tmp_path_factory.mktemp("fitted")
    images = ("--root", write_images(folder / "photos"), "--image-size", 12, "--device", "cpu")
    fit = ("--arch", ARCH, "--classifier", "fit", "--weight-decay", 1e-3)
    stores = {dtype: folder / f"{dtype}.zarr" for dtype in ("float32", "bfloat16", "int8")}
    for dtype, store in stores.items():
        succeed("extract", *images, *fit, "--store", store, "--dtype", dtype)
    return stores


def verify(store: Path, fitted: Path) -> list[object]:
    of = ("--ckpt", fitted.with_suffix(".checkpoint.pt"), "--arch", ARCH)
    return ["store", "verify", store, "--sample", 99, *of, "--device", "cpu", "--json"]


@pytest.mark.parametrize("kind", DTYPES)
def test_a_sound_one_passes(kind, fitted, tmp_path):
    first, *later = DTYPES[kind]
    store = fitted[first]
    for k, dtype in enumerate(later):
        converted = tmp_path / f"{k}.h5"
        succeed("store", "convert", store, converted, "--dtype", dtype)
        store = converted
    assert FeatureStore(store).map_dtype == later[-1]
    result = run(*verify(store, fitted[first]))
    assert result.exit_code == 0, result.output


def test_maps_of_other_images_are_found(fitted, tmp_path, quiet):
    succeed("store", "convert", fitted["float32"], tmp_path / "a.h5", "--dtype", "bfloat16")

    def swapped(rows):
        swap(rows, "train", ("cam",), 2, 5)

    rewrite(tmp_path / "a.h5", tmp_path / "b.zarr", swapped)
    ckpt = str(fitted["float32"].with_suffix(".checkpoint.pt"))
    config = SampleConfig(sample=99, ckpt=ckpt, device="cpu", arch=ARCH)
    found = compare(draw_sample(FeatureStore(tmp_path / "b.zarr"), config, quiet), quiet)
    assert [(d.row, d.what.partition(":")[0]) for d in found] == [(2, "cam"), (5, "cam")]
