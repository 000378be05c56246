"""Augmentation, normalisation, and the streams of batches."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from extract.device import Compute
from extract.images.batches import evaluation_batches, training_batches
from extract.images.image_set import ImageSet, read_image
from extract.images.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Transform,
    augment_batch,
    channel_statistics,
    evaluation_image,
    normalise,
    training_image,
)
from extract.images.views import with_views

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # normalising only divides by 255


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=seeded(0), dtype=torch.uint8)


def write_images(folder: Path, n: int, size: int) -> list[Path]:
    paths = []
    for row, pixels in enumerate(random_images(n, size, size, 3).numpy()):
        paths.append(folder / f"{row}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


# Augmentation of small images


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width", "padding"), [(32, 24, 4), (64, 64, 8), (8, 8, 1)])
def test_augment_batch_equals_a_slow_reference(height, width, padding, flip):
    images = random_images(50, 3, height, width)
    augmented = augment_batch(images, Transform(height, flip=flip), seeded(7))

    generator = seeded(7)
    top, left = torch.randint(2 * padding + 1, (2, 50), generator=generator)
    mirrored = torch.rand(50, generator=generator) < 0.5
    for row, image in enumerate(images):
        padded = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
        padded[:, padding : padding + height, padding : padding + width] = image
        expected = padded[:, top[row] : top[row] + height, left[row] : left[row] + width]
        if flip and mirrored[row]:
            expected = expected.flip(-1)
        assert torch.equal(augmented[row], expected)
    assert mirrored.any()  # the reference covered all its cases
    assert not mirrored.all()
    assert {0, 2 * padding} <= set(top.tolist()) & set(left.tolist())
    assert augmented.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_determined_by_its_generator():
    images = random_images(16, 3, 32, 32)
    first, second, other = (augment_batch(images, Transform(32), seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    generator = seeded(3)
    assert torch.equal(augment_batch(images, Transform(32), generator), first)
    assert not torch.equal(augment_batch(images, Transform(32), generator), first)  # it has advanced


# Normalisation


def test_a_training_split_is_normalised_to_mean_0_and_deviation_1():
    scale = torch.tensor([0.2, 0.6, 1.0]).view(1, 3, 1, 1)
    images = (random_images(40, 3, 16, 16) * scale + 10 * (1 - scale)).to(torch.uint8)
    split = ImageSet(images, np.zeros(40, np.int64), np.arange(40))
    mean, std = channel_statistics(split)
    assert len(set(mean)) == len(set(std)) == 3
    normalised = normalise(images, Transform(16, mean, std))
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_normalising_by_hand():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    transform = Transform(1, mean=(0.5, 0.25, 0.0), std=(0.25, 0.5, 2.0))
    torch.testing.assert_close(normalise(image, transform).flatten(), torch.tensor([2.0, -0.5, 0.1]))


def test_a_channel_of_one_value_stays_finite():
    images = torch.full((4, 3, 8, 8), 9, dtype=torch.uint8)
    mean, std = channel_statistics(ImageSet(images, np.zeros(4, np.int64), np.arange(4)))
    assert normalise(images, Transform(8, mean, std)).abs().max() < 1e-3


def test_images_on_disk_take_imagenet_s_statistics():
    on_disk = ImageSet([Path("a.png")], np.zeros(1, np.int64), np.arange(1))
    assert channel_statistics(on_disk) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("shape", [(5, 3, 40, 72), (3, 3, 224, 224), (2, 3, 2, 40_000), (0, 3, 8, 8)])
def test_normalising_in_memory_that_is_there_gives_the_same_bits(shape):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    transform = Transform(224)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images.float() / 255 - mean) / std
    for pixels in (images, images.contiguous(memory_format=torch.channels_last)):
        out = torch.full(shape, torch.nan)
        assert normalise(pixels, transform, out) is out
        assert torch.equal(out, expected)
        assert torch.equal(normalise(pixels, transform), expected)


@pytest.mark.parametrize("n_views", [1, 2])
@pytest.mark.parametrize("kept", [1, 2])
def test_batches_share_the_memory_of_as_many_as_are_kept(kept, n_views, tmp_path):
    split = ImageSet(write_images(tmp_path, 10, 80), np.arange(10) % 3, np.arange(10))
    split = split if n_views == 1 else with_views(split, 0, n_views)
    for workers in (0, 2):
        own = [images for images, _ in evaluation_batches(split, Transform(72), compute(4, workers))]
        assert len({images.data_ptr() for images in own}) == 3 * n_views
        last, places = deque(maxlen=kept), set()
        batches = evaluation_batches(split, Transform(72), compute(4, workers), kept)
        for number, (images, _) in enumerate(batches, 1):
            last.append(images)
            places.add(images.data_ptr())
            assert all(torch.equal(*pair) for pair in zip(last, own[max(0, number - kept) :], strict=False))
        assert number == len(own)
        assert len(places) == kept


# Large images, one by one


def test_a_training_image_depends_on_its_seed_alone(tmp_path):
    (path,) = write_images(tmp_path, 1, 40)
    before = torch.get_rng_state()
    first = training_image(read_image(path), Transform(32), 5)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = training_image(read_image(path), Transform(32), 5)
    assert torch.equal(first, again)
    assert not torch.equal(first, training_image(read_image(path), Transform(32), 6))
    assert first.dtype == torch.uint8
    assert first.shape == (3, 32, 32)


def test_a_training_image_is_what_torchvision_draws_from_its_seed(tmp_path):
    (path,) = write_images(tmp_path, 1, 90)
    image, transform = read_image(path), Transform(72)
    pipeline = v2.Compose([v2.RandomResizedCrop(72, antialias=True), v2.RandomHorizontalFlip()])
    for seed in (0, 7, 2**63):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = pipeline(image)
        assert torch.equal(training_image(image, transform, seed), expected)


def test_training_images_are_cropped_and_mirrored_only_where_flip_says_so(tmp_path):
    ramp = np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))  # darker on the left
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "a.png")
    rises = {}
    for flip in (False, True):
        image = read_image(tmp_path / "a.png")
        crops = [training_image(image, Transform(16, flip=flip), seed) for seed in range(20)]
        rises[flip] = {bool(crop[0, 8, -1] > crop[0, 8, 0]) for crop in crops}
        assert len({int(crop.max()) - int(crop.min()) for crop in crops}) > 5  # of many scales
    assert rises == {False: {True}, True: {True, False}}


def test_an_evaluation_image_is_the_centre_at_256_to_224(tmp_path):
    (path,) = write_images(tmp_path, 1, 256)
    pixels = np.asarray(Image.open(path))
    shown = evaluation_image(read_image(path), Transform(224))
    np.testing.assert_array_equal(shown.permute(1, 2, 0), pixels[16:240, 16:240])
    (tmp_path / "small").mkdir()
    (path,) = write_images(tmp_path / "small", 1, 64)
    np.testing.assert_array_equal(
        evaluation_image(read_image(path), Transform(64)).permute(1, 2, 0), np.asarray(Image.open(path))
    )


# Batches


def compute(batch_size: int, workers: int = 0) -> Compute:
    return Compute(torch.device("cpu"), "fp32", batch_size, workers)


def numbered(n: int, size: int = 8) -> ImageSet:
    """Image i is filled with i + 1, and its label is 2 i."""
    images = torch.arange(1, n + 1, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, 3, size, size)
    return ImageSet(images, np.arange(n) * 2, np.arange(n))


def numbered_files(folder: Path, n: int, size: int = 8) -> ImageSet:
    split, paths = numbered(n, size), []
    for row, image in enumerate(split.images):
        paths.append(folder / f"{row}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    return ImageSet(paths, split.label, split.sample_index)


def image_numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 4, 4] * 255).round().int().sub(1).tolist()


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_epoch_shows_every_image_once_with_its_label(tmp_path, in_memory):
    split = numbered(23) if in_memory else numbered_files(tmp_path, 23)
    epochs = []
    for seed in (0, 0, 1):
        batches = list(training_batches(split, Transform(8, **PLAIN), seeded(seed), compute(5)))
        assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
        shown = [i for images, _ in batches for i in image_numbers(images)]
        assert sorted(shown) == list(range(23))
        assert [2 * i for i in shown] == torch.cat([labels for _, labels in batches]).tolist()
        assert batches[0][0].dtype == torch.float32
        assert batches[0][1].dtype == torch.int64
        epochs.append(shown)
    assert epochs[0] == epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_keeps_the_order_and_the_pixels(tmp_path, workers):
    for split in (numbered(11), numbered_files(tmp_path, 11)):
        batches = list(evaluation_batches(split, Transform(8, **PLAIN), compute(4, workers)))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert image_numbers(images) == list(range(11))
        assert labels.tolist() == [2 * i for i in range(11)]
        torch.testing.assert_close(images, numbered(11).images / 255)


def test_workers_do_not_change_the_training_batches(tmp_path):
    paths = write_images(tmp_path, 10, 24)
    split = ImageSet(paths, np.arange(10), np.arange(10))
    transform = Transform(16, augment="randaugment", jitter=0.4, cutout=5, erasing=0.5)
    alone, helped, other = (
        list(training_batches(split, transform, seeded(seed), compute(4, workers)))
        for seed, workers in ((0, 0), (0, 2), (1, 0))
    )
    for (images, labels), (helped_images, helped_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, helped_images)
        assert torch.equal(labels, helped_labels)
    assert not torch.equal(alone[0][0], other[0][0])


def test_batches_from_memory_are_augmented_in_training_only():
    split = ImageSet(random_images(12, 3, 32, 32), np.arange(12), np.arange(12))
    shown = {}
    for images, labels in training_batches(split, Transform(32, **PLAIN), seeded(0), compute(4)):
        shown |= dict(zip(labels.tolist(), images, strict=True))
    untouched = [torch.equal((shown[i] * 255).round().byte(), split.images[i]) for i in range(12)]
    assert sum(untouched) < 3
