"""Reading image files: every format becomes RGB uint8 with the intended pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from extract.images.decode import TODAY
from extract.images.image_set import ImageSet, decode, read_image, resize_and_crop
from store.errors import UserError

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10  # 4 rows, 6 columns


def read(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def grey_repeated(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[:, :, None], 3, axis=2)


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 128, 0, 7, 8, 9])
    image.putdata([2, 0, 1])
    return image


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.ppm", "a.bmp", "a.tiff", "A.PNG"])
def test_colours_are_read_exactly(tmp_path, name):
    pixels = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(pixels).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read(tmp_path / name), pixels)


def test_jpeg_is_read_closely(tmp_path):
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read(tmp_path / "a.jpg"), np.full((16, 16, 3), (200, 100, 50)), atol=3)


@pytest.mark.parametrize("name", ["a.png", "a.pgm"])
def test_grey_is_repeated(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), grey_repeated(RAMP))


def test_one_bit_images_are_black_and_white(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey_repeated((RAMP > 100) * np.uint8(255)))


def test_palettes_are_looked_up(tmp_path):
    palette_image().save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[[7, 8, 9], [255, 0, 0], [0, 128, 0]]]


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])], ids=["one colour", "each colour"])
def test_palettes_with_transparency_keep_their_colours(tmp_path, transparency):
    palette_image().save(tmp_path / "a.png", transparency=transparency)
    with Image.open(tmp_path / "a.png") as image:
        assert "transparency" in image.info
    assert read(tmp_path / "a.png").tolist() == [[[7, 8, 9], [255, 0, 0], [0, 128, 0]]]


@pytest.mark.parametrize(("mode", "pixel"), [("RGBA", (10, 20, 30)), ("LA", (40,))])
def test_alpha_is_dropped_and_not_blended(tmp_path, mode, pixel):
    for alpha in (0, 100, 255):
        Image.new(mode, (2, 2), (*pixel, alpha)).save(tmp_path / "a.png")
        assert read(tmp_path / "a.png")[0, 0].tolist() == list(pixel if len(pixel) == 3 else pixel * 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, name):
    values = np.array([[0, 255, 256, 0x8040, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), grey_repeated((values + 128.0) // 257))


def test_16_bit_pgm_is_scaled_too(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + bytes([0, 200, 0x80, 0x40, 0xFF, 0xFF]))
    assert read(tmp_path / "a.pgm")[0, :, 0].tolist() == [1, 0x80, 0xFF]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_have_no_range_and_are_refused(tmp_path, dtype):
    """Shifted like 16-bit pixels, an image of 0 to 255 would be black."""
    Image.fromarray(np.full((4, 4), 200, dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"a.tiff: not a readable image \(32-bit pixels"):
        read(tmp_path / "a.tiff")


def test_an_image_of_the_right_size_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cropped = resize_and_crop(TF.pil_to_tensor(Image.fromarray(pixels)), 32, 32)
    assert cropped.dtype == torch.uint8
    np.testing.assert_array_equal(cropped.permute(1, 2, 0), pixels)


def test_the_crop_is_the_centre():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    cropped = resize_and_crop(TF.pil_to_tensor(Image.fromarray(pixels)), 40, 32)
    np.testing.assert_array_equal(cropped.permute(1, 2, 0), pixels[4:36, 4:36])


@pytest.mark.parametrize("tall", [False, True])
def test_the_shorter_side_is_resized_and_the_longer_cropped(tall):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = (200, 100, 50)  # the central square
    image = Image.fromarray(pixels.swapaxes(0, 1).copy() if tall else pixels)
    cropped = resize_and_crop(TF.pil_to_tensor(image), 10, 10)
    assert cropped.shape == (3, 10, 10)
    assert cropped[:, 1:-1, 1:-1].flatten(1).T.unique(dim=0).tolist() == [[200, 100, 50]]


def test_an_image_of_the_crop_s_size_is_still_resized():
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[2:-2, 2:-2] = 200  # the border is what a resize to 32 pushes out of the crop
    cropped = resize_and_crop(TF.pil_to_tensor(Image.fromarray(pixels)), 32, 28)
    assert cropped.shape == (3, 28, 28)
    assert cropped[:, 1, 14].min() > 0
    assert cropped[:, 0, 14].max() < 200


def test_shrinking_is_antialiased():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::8] = 240  # plain interpolation would step over every one of these columns
    shrunk = resize_and_crop(TF.pil_to_tensor(Image.fromarray(pixels)), 8, 8)[:, :, 1:-1].float()
    torch.testing.assert_close(shrunk, torch.full_like(shrunk, 30.0), atol=4, rtol=0)


def test_decoding_in_memory_equals_reading_one_by_one(tmp_path, quiet):
    generator = np.random.default_rng(0)
    paths = []
    for row, size in enumerate([(32, 32), (50, 40), (20, 70), (16, 16), (33, 32)] * 3):
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(pixels).save(paths[-1])
    split = ImageSet(paths, np.arange(15) % 4, np.arange(15) + 100)
    decoded = decode(split, 32, quiet, "train", TODAY)
    assert decoded.in_memory
    assert decoded.images.dtype == torch.uint8
    one_by_one = torch.stack([resize_and_crop(read_image(path), 32, 32) for path in paths])
    assert torch.equal(decoded.images, one_by_one)
    np.testing.assert_array_equal(decoded.label, split.label)
    np.testing.assert_array_equal(decoded.sample_index, split.sample_index)


@pytest.mark.parametrize("in_memory", [False, True])
def test_take_keeps_images_labels_and_places_together(in_memory):
    paths = [Path(str(i)) for i in range(5)]
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1) if in_memory else paths
    taken = ImageSet(images, np.arange(5) * 10, np.arange(5) * 100).take(np.array([3, 0, 3]))
    assert [int(str(image if not in_memory else image.item())) for image in taken.images] == [3, 0, 3]
    assert taken.label.tolist() == [30, 0, 30]
    assert taken.sample_index.tolist() == [300, 0, 300]
    assert len(taken) == 3
