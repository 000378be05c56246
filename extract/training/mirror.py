"""A hint after training on mirrored images: classes that are each other's mirror image.

A network that saw half of its images mirrored cannot tell a left turn from a right turn, and no method of
Phase II can fix that. The hint is about the data and chooses nothing, so without a validation split the test
split may show which classes are confused.
"""

from dataclasses import dataclass

import numpy as np
import torch

from extract.dataset import Dataset
from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from store.names import shown
from store.notes import note

MOST_PAIRS = 10  # of confused classes to compare
CONFUSED = 0.15  # least share of a pair's images taken for the other class; guessing gives 0.5
MISTAKEN = 3  # least number of such images
MOST_IMAGES, FEWEST_IMAGES = 200, 20  # of a class, to compute its mean image
SIDE = 32  # pixels of a mean image
ABOVE_CHANCE = 5  # least squared distance of two mean images, in multiples of that expected by chance
REPEATED = 0.5  # least cosine between their differences in the two halves of the images
LEFT_OVER = 0.3  # largest share of the squared distance that remains when one of the two is mirrored


@dataclass(frozen=True)
class Pair:
    """Two classes that a network confuses.

    Attributes:
        first, second: class ids.
        confused: share of their images taken for the other class, both classes weighing the same.
    """

    first: int
    second: int
    confused: float


@dataclass(frozen=True)
class MeanImage:
    """The mean image of a class, of SIDE pixels at most.

    Attributes:
        halves: (2, 3, side, side) float64, the means of the first and the second half of its images.
        chance: expected squared distance of their mean from that of all possible images.
    """

    halves: torch.Tensor
    chance: float


def note_mirrored_pairs(
    dataset: Dataset, predicted: np.ndarray, transform: Transform, compute: Compute
) -> None:
    """Note confused classes that are each other's mirror image, and what to do; silent if there are none.

    Args:
        dataset: the data set of the training, which mirrored images.
        predicted: (N,) class of every image of the validation split or, without one, of the test split.
        transform: the network's.
        compute: device and batch size for reading images.
    """
    split, held_out = ("test", dataset.test) if dataset.val is None else ("val", dataset.val)
    pairs = confused_pairs(held_out.label, predicted, len(dataset.class_names))
    classes = sorted({c for pair in pairs for c in (pair.first, pair.second)})
    means = {c: mean_image(dataset.train, c, transform, compute) for c in classes}
    found = [pair for pair in pairs if are_mirrored(means[pair.first], means[pair.second])]
    if not found:
        return
    names = [shown(name) for name in dataset.class_names]
    listed = ", ".join(
        f"{names[p.first]} and {names[p.second]} ({100 * p.confused:.0f} % of their {split} images)"
        for p in found
    )
    note(
        "half of the training images were mirrored, and these classes, which are often confused, look like "
        f"each other's mirror image: {listed}; a network cannot tell them apart that way: train with "
        "--no-flip"
    )


def confused_pairs(label: np.ndarray, predicted: np.ndarray, n_classes: int) -> list[Pair]:
    """The most confused pairs of classes, at most MOST_PAIRS, most confused first.

    Only images of the two classes that were taken for one of the two count. Both classes weigh the same,
    however many images they have: of two that look alike, the rare one may always be taken for the frequent
    one and never the reverse, which gives 0.5, like guessing.

    Args:
        label, predicted: (N,) classes.
        n_classes: K.
    """
    wrong = label != predicted
    n_images = np.maximum(1, np.bincount(label, minlength=n_classes))
    right = np.bincount(label[~wrong], minlength=n_classes) / n_images
    mistakes, counts = np.unique(np.stack([label[wrong], predicted[wrong]]), axis=1, return_counts=True)
    # Number of images by (true, predicted).
    taken = dict(zip(map(tuple, mistakes.T.tolist()), counts.tolist(), strict=True))
    pairs = []
    for a, b in {(min(mistake), max(mistake)) for mistake in taken}:
        there, back = taken.get((a, b), 0), taken.get((b, a), 0)
        mixed = there / n_images[a] + back / n_images[b]
        confused = float(mixed / (mixed + right[a] + right[b]))
        if there + back >= MISTAKEN and confused >= CONFUSED:
            pairs.append(Pair(a, b, confused))
    return sorted(pairs, key=lambda pair: (-pair.confused, pair.first, pair.second))[:MOST_PAIRS]


def mean_image(train: ImageSet, class_id: int, transform: Transform, compute: Compute) -> MeanImage | None:
    """The mean of at most MOST_IMAGES training images of a class; None if it has fewer than FEWEST_IMAGES.

    Every image is first scaled to mean 0 and standard deviation 1, so that lighting does not count. The
    halves follow the listing's order: consecutive images may show the same thing, and are not independent.
    """
    index = np.flatnonzero(train.label == class_id)
    if len(index) < FEWEST_IMAGES:
        return None
    index = index[np.argsort(train.sample_index[index])]
    n, side = min(len(index), MOST_IMAGES), min(SIDE, transform.image_size)
    chosen = train.take(index[np.arange(n) * len(index) // n])
    images = []
    for batch, _ in evaluation_batches(chosen, transform, compute):
        small = torch.nn.functional.adaptive_avg_pool2d(batch, side).double().cpu()
        small = small - small.mean(dim=(1, 2, 3), keepdim=True)
        images.append(small / small.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6))
    every = torch.cat(images)
    halves = torch.stack([every[: n // 2].mean(dim=0), every[n // 2 :].mean(dim=0)])
    return MeanImage(halves, float(every.var(dim=0).sum()) / n)


def are_mirrored(first: MeanImage | None, second: MeanImage | None) -> bool:
    """Whether two classes look like each other's mirror image, and not alike without mirroring.

    Their mean images must differ by more than chance, in the same way in both halves of the images, and
    mirroring one of them must remove most of that difference.
    """
    if first is None or second is None:
        return False
    as_is = first.halves - second.halves
    mirrored = first.halves - second.halves.flip(-1)
    far, near = (float(halves.mean(dim=0).square().sum()) for halves in (as_is, mirrored))
    if far <= ABOVE_CHANCE * (first.chance + second.chance):
        return False
    cosine = torch.nn.functional.cosine_similarity(*as_is.flatten(1), dim=0)
    return float(cosine) >= REPEATED and near <= LEFT_OVER * far
