"""JPEG files through torchvision's decoder: Pillow's pixels, errors and turning, whatever the file."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

import extract.images.jpeg
from extract.images.decode import TODAY, decode_image
from extract.images.jpeg import gives_same_pixels
from extract.images.transforms import Transform, evaluation_image

WAYS = [  # options of Pillow's writer
    {"quality": 95, "subsampling": 0},
    {"quality": 80, "subsampling": 1},
    {"quality": 60, "subsampling": 2},
    {"quality": 25, "subsampling": "4:1:1"},
    {"quality": 90, "subsampling": 2, "progressive": True},
    {"quality": 90, "optimize": True, "restart_marker_blocks": 2},
    {"quality": 100, "keep_rgb": True},
]


def photograph(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (1 + height // 4, 1 + width // 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that torchvision decoded."""
    gives_same_pixels()
    sizes, decode = [], extract.images.jpeg.decode_jpeg

    def counted(content: torch.Tensor) -> torch.Tensor:
        pixels = decode(content)
        sizes.append(len(content))
        return pixels

    monkeypatch.setattr(extract.images.jpeg, "decode_jpeg", counted)
    return sizes


def by_pillow(content: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return TF.pil_to_tensor(image.convert("RGB"))


def test_every_kind_of_jpeg_has_pillow_s_pixels(fast):
    n_files = 0
    for width, height in ((64, 48), (75, 53), (1, 1), (9, 130)):
        for image in (photograph(width, height), photograph(width, height).convert("L")):
            for options in WAYS:
                content = saved(image, **options)
                assert torch.equal(decode_image(content, TODAY)[0], by_pillow(content)), options
                n_files += 1
    assert len(fast) == n_files  # torchvision decoded them all


def test_colours_that_are_sampled_by_rows_have_pillow_s_pixels(fast):
    """As where a photograph was turned without decoding it; no probe is like that."""
    content = bytearray(saved(photograph(64, 48), subsampling=1))
    frame = content.index(b"\xff\xc0")  # its height, width and, of the first of three channels, the sampling
    assert content[frame + 5 : frame + 12] == bytes([0, 48, 0, 64, 3, 1, 0x21])
    content[frame + 5 : frame + 12] = bytes([0, 64, 0, 48, 3, 1, 0x12])
    assert torch.equal(decode_image(bytes(content), TODAY)[0], by_pillow(content))
    assert len(fast) == 1


def test_what_only_pillow_reads_well_is_left_to_it(fast):
    several = saved(photograph(40, 30), "MPO", save_all=True, append_images=[photograph(40, 30).rotate(90)])
    for content, n_fast in (
        (saved(photograph(40, 30).convert("CMYK")), 0),
        (saved(photograph(40, 30), "PNG"), 0),
        (several, 1),  # the first of several photographs in one file
    ):
        assert torch.equal(decode_image(content, TODAY)[0], by_pillow(content))
        assert len(fast) == n_fast


def damaged(content: bytes) -> Iterator[bytes]:
    generator = np.random.default_rng(0)
    for length in (*range(len(content) - 4, len(content)), *generator.integers(4, len(content), 30)):
        yield content[:length]
    for _ in range(120):
        start, n_lost = int(generator.integers(2, len(content))), int(generator.integers(1, 30))
        yield content[:start] + content[start + n_lost :]
        flipped = bytearray(content)
        flipped[start] ^= 1 << int(generator.integers(8))
        yield bytes(flipped)


@pytest.mark.parametrize("options", [WAYS[1], WAYS[4], WAYS[5]], ids=["plain", "progressive", "restarts"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_or_read_as_pillow_does(options, monkeypatch):
    for content in damaged(saved(photograph(75, 53), **options)):
        outcomes = []
        for is_fast in (True, False):
            monkeypatch.setattr(extract.images.jpeg, "gives_same_pixels", lambda is_fast=is_fast: is_fast)
            try:
                outcomes.append(decode_image(content, TODAY)[0].numpy().tobytes())
            except Exception as error:
                outcomes.append((type(error), str(error).split(" at 0x")[0]))
        assert outcomes[0] == outcomes[1]


def test_a_decoder_that_rounds_otherwise_is_not_used(monkeypatch):
    content = saved(photograph(64, 48))
    other = extract.images.jpeg.decode_jpeg

    def one_off(content: torch.Tensor) -> torch.Tensor:
        pixels = other(content)
        pixels[0, 0, 0] ^= 1
        return pixels

    monkeypatch.setattr(extract.images.jpeg, "decode_jpeg", one_off)
    gives_same_pixels.cache_clear()
    try:
        assert not gives_same_pixels()
        assert torch.equal(decode_image(content, TODAY)[0], by_pillow(content))
    finally:
        gives_same_pixels.cache_clear()


def test_without_torchvision_s_operator_pillow_decodes(monkeypatch):
    content = saved(photograph(64, 48))
    monkeypatch.setattr(torch.ops, "image", object())
    gives_same_pixels.cache_clear()
    try:
        assert torch.equal(decode_image(content, TODAY)[0], by_pillow(content))
        assert not gives_same_pixels()
    finally:
        gives_same_pixels.cache_clear()


@pytest.mark.parametrize("orientation", range(10))
def test_turned_photographs_are_resized_to_the_same_pixels(orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content, seen = saved(photograph(150, 110), exif=exif), []
    for is_fast in (True, False):
        monkeypatch.setattr(extract.images.jpeg, "gives_same_pixels", lambda is_fast=is_fast: is_fast)
        seen.append(evaluation_image(decode_image(content, TODAY)[0], Transform(72)))
    assert torch.equal(*seen)
