"""16-bit pixels are scaled to their range, and photographs turned as a person sees them."""

import io
import struct

import numpy as np
import pytest
from made_images import png16, tiff16
from PIL import Image, UnidentifiedImageError

from extract.images.decode import FULL, TODAY, Depth, Reading, decode_image, find_white

IN_0_1 = Reading(upright=False, white=None)
SIDES = {  # EXIF's orientations: the side at which the stored rows begin, and the columns
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def values(channels: int, most: int = 255) -> np.ndarray:
    """(5, 6, C) uint16 noise whose largest value is `most`, in every channel."""
    drawn = np.random.default_rng(channels).integers(0, most, (5, 6, channels)).astype(np.uint16)
    drawn[2, 3] = most
    return drawn


def rgb(content: bytes, reading: Reading = TODAY) -> np.ndarray:
    return decode_image(content, reading)[0].permute(1, 2, 0).numpy()


def without_alpha(drawn: np.ndarray) -> np.ndarray:
    return drawn[..., :3] if drawn.shape[2] > 2 else np.repeat(drawn[..., :1], 3, axis=2)


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def ppm16(drawn: np.ndarray) -> bytes:
    return b"P%d 6 5 65535\n" % (5 if drawn.shape[2] == 1 else 6) + drawn.astype(">u2").tobytes()


def plain16(drawn: np.ndarray) -> bytes:
    """As text, with a comment and arbitrary line breaks."""
    words = [str(value) for value in drawn.ravel().tolist()]
    lines = [" ".join(words[i : i + 7]) for i in range(0, len(words), 7)]
    kind = 2 if drawn.shape[2] == 1 else 3
    return f"P{kind}\n# made\n6 5\n65535\n{lines[0]} # 1 2 3\n".encode() + "\r\n".join(lines[1:]).encode()


def white_is_zero(drawn: np.ndarray, order: str, compressed: bool) -> bytes:
    """TIFF in which 0 is white and 65535 black."""
    black_is_zero = tiff16(FULL - drawn, order, compressed)
    content = black_is_zero.replace(*(struct.pack(f"{order}HHIH", 262, 3, 1, kind) for kind in (1, 0)))
    assert content != black_is_zero
    return content


FILES = [
    *(pytest.param(ppm16, channels, id=f"ppm of {channels}") for channels in (1, 3)),
    *(pytest.param(plain16, channels, id=f"plain ppm of {channels}") for channels in (1, 3)),
    *(pytest.param(png16, channels, id=f"png of {channels}") for channels in (1, 2, 3, 4)),
    *(
        pytest.param(
            lambda v, o=order, c=compressed: tiff16(v, o, c), channels, id=f"tiff {order} {compressed}"
        )
        for order in "<>"
        for compressed in (False, True)
        for channels in (1, 3)
    ),
]


@pytest.mark.parametrize(("write", "channels"), FILES)
def test_small_values_in_16_bits_are_the_pixels_of_8_bits(write, channels):
    drawn = values(channels)
    content = write(drawn)
    image, depth = decode_image(content, TODAY)
    assert depth == Depth(0, without_alpha(drawn).max())
    assert np.asarray(image).max() <= 1  # scaled by the full range of 16 bits: black
    white = find_white(np.array([depth]))
    assert white == {0: 255}
    np.testing.assert_array_equal(rgb(content, Reading(white=white)), without_alpha(drawn))


@pytest.mark.parametrize(("write", "channels"), FILES)
def test_values_are_scaled_and_rounded_and_those_above_clipped(write, channels):
    drawn = values(channels, 60_000)
    exact = without_alpha(drawn).astype(float)
    for white in (255, 4095, 65_535):
        found = rgb(write(drawn), Reading(white={0: white}))
        np.testing.assert_allclose(found, np.minimum(exact * 255 / white, 255), atol=0.51)


@pytest.mark.parametrize(("write", "channels"), FILES)
def test_version_0_1_took_the_upper_bits(write, channels):
    drawn = values(channels, 65_535)
    rounded = 1 if write in (ppm16, plain16) else 0  # by Pillow, in colour
    np.testing.assert_allclose(rgb(write(drawn), IN_0_1), without_alpha(drawn) >> 8, atol=rounded)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_white_that_is_zero_is_white_or_the_image_is_refused(order, compressed):
    """Pillow reads one byte order as if 0 were black; so did version 0.1."""
    drawn = values(1, 60_000)
    content = white_is_zero(drawn, order, compressed)
    try:
        found = rgb(content, Reading(white={0: 60_000}))
    except UnidentifiedImageError:
        assert order == ">"
        return
    exact = without_alpha(drawn).astype(float) * 255 / 60_000
    np.testing.assert_allclose(found, exact, atol=0.51)
    np.testing.assert_array_equal(rgb(content, IN_0_1), without_alpha(FULL - drawn) >> 8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_tells_significant_bits(channels):
    low, high = values(channels, 3000), values(channels, 3000) << 4
    for drawn, white in ((low, 4095), (high, 65_535)):  # as some write them, and as the specification says
        content = png16(drawn, significant_bits=12)
        _, depth = decode_image(content, TODAY)
        found = find_white(np.array([depth]))
        assert found == {12: white}
        exact = without_alpha(drawn).astype(float) * 255 / white
        np.testing.assert_allclose(rgb(content, Reading(white=found)), exact, atol=0.51)
        np.testing.assert_array_equal(rgb(content), rgb(content, Reading(white=found)))
    dark = png16(
        values(channels, 4000), significant_bits=12
    )  # but counted from the top, as other values show
    assert rgb(dark, Reading(white={12: 65_535})).max() == 16


def test_tiff_and_pgm_tell_what_they_span():
    drawn = values(1, 3000)
    exact = without_alpha(drawn).astype(float) * 255 / 4095
    image, depth = decode_image(tiff16(drawn, "<", False, bits=12), TODAY)
    assert depth == Depth(12, 3000)
    np.testing.assert_allclose(image.permute(1, 2, 0), exact, atol=0.51)
    image, depth = decode_image(b"P5 6 5 4095\n" + drawn.astype(">u2").tobytes(), TODAY)
    assert find_white(np.array([depth])) == {16: 65_535}
    np.testing.assert_allclose(image.permute(1, 2, 0), exact, atol=0.51)
    image, depth = decode_image(b"P5 6 5 65535\n" + drawn.astype(">u2").tobytes(), TODAY)
    assert depth == Depth(0, 3000)  # 16 significant bits are what every program writes


def test_the_brightest_training_image_of_a_kind_is_white():
    depths = [(0, 0), (0, 900), (0, 1000), (12, 7), (10, 1023), (10, 1024), (16, 5), (0, 3)]
    assert find_white(np.array(depths)) == {0: 1000, 12: 4095, 10: 65_535, 16: 65_535}
    assert find_white(np.zeros((3, 2), int)) == {}


def test_8_bits_have_no_depth():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = Image.fromarray(values(3).astype(np.uint8)).convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        assert decode_image(file.getvalue(), TODAY)[1] == Depth()


def test_16_bit_colours_that_cannot_be_had_whole_are_refused():
    """Their upper bytes alone might be black."""
    whole = tiff16(values(3), "<", False)
    planes = whole.replace(struct.pack("<HHIH", 284, 3, 1, 1), struct.pack("<HHIH", 284, 3, 1, 2))
    assert planes != whole
    with pytest.raises(ValueError, match="16-bit colours in an unusual layout"):
        decode_image(planes, TODAY)


def test_float_pixels_are_refused_in_every_format():
    with pytest.raises(ValueError, match="32-bit pixels"):
        decode_image(b"Pf 2 1 -1.0\n" + np.ones(2, "<f4").tobytes(), TODAY)


def stored(seen: np.ndarray, rows_begin: str, columns_begin: str) -> np.ndarray:
    """What a camera stores for what a person sees, in the words of the EXIF standard."""
    if rows_begin in ("left", "right"):
        seen = seen.swapaxes(0, 1)
    seen = seen[::-1] if rows_begin in ("bottom", "right") else seen
    return np.ascontiguousarray(seen[:, ::-1] if columns_begin in ("bottom", "right") else seen)


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photographs_are_turned_as_a_person_sees_them(kind, orientation):
    seen = np.zeros((24, 16, 3), np.uint8)
    seen[:8, :8], seen[:8, 8:], seen[8:, :8] = (240, 0, 0), (0, 240, 0), (0, 0, 240)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    content = saved(stored(seen, *SIDES[orientation]), kind, exif=exif, **lossless)
    np.testing.assert_allclose(rgb(content), seen, atol=12 if kind == "JPEG" else 0)
    if kind != "TIFF":  # which Pillow always turns
        as_stored = stored(seen, *SIDES[orientation])
        np.testing.assert_allclose(rgb(content, IN_0_1), as_stored, atol=12 if kind == "JPEG" else 0)


def test_16_bits_are_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn = values(1)[..., 0]
    content = saved(stored(drawn, *SIDES[6]), "PNG", exif=exif)
    np.testing.assert_array_equal(rgb(content, Reading(white={0: 255}))[..., 0], drawn)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_broken_exif_leaves_an_image_as_it_lies(exif):
    pixels = np.full((8, 8, 3), 90, np.uint8)
    pixels[:4] = 30
    np.testing.assert_allclose(rgb(saved(pixels, "JPEG", exif=exif)), pixels, atol=3)
