"""Long-tailed subsets of a source, by the protocol of the class-balanced loss and LDAM-DRW papers.

In a balanced source, class 0 keeps the most images and the last class the fewest. In a source that is
long-tailed itself, the largest class keeps the most.
"""

from typing import Literal

import numpy as np

from store.errors import UserError

PROTOCOL_SEED = 0  # LDAM-DRW's choice, so that every "CIFAR-10-LT" holds the same images
BALANCED = 2  # ratio of the largest to the smallest class up to which a source counts as balanced
TailOrder = Literal["class index", "frequency"]


def long_tail_counts(n_max: int, n_classes: int, imbalance_factor: float) -> list[int]:
    """Images to keep in each class: exponential from n_max down to n_max / imbalance_factor.

    n_c = int(n_max · (1 / IM) ** (c / (K − 1))), truncated (Cui et al. 2019, sec. 5.1).

    Raises:
        UserError: the factor is below 1 (or not a number), or leaves a class without an image.
    """
    if not imbalance_factor >= 1 or imbalance_factor == float("inf"):
        raise UserError(
            f"--imbalance-factor {imbalance_factor:g}: must be 1 (balanced) or more; "
            "it is the largest class's count over the smallest's"
        )
    ratio = 1 / imbalance_factor
    counts = [int(n_max * ratio ** (c / (n_classes - 1))) for c in range(n_classes)]
    if counts[-1] < 1:
        raise UserError(
            f"--imbalance-factor {imbalance_factor:g}: leaves class {counts.index(0)} of {n_classes} "
            f"(in order of size) without an image; with {n_max} in the smallest class it must be below "
            f"{n_max}"
        )
    return counts


def tail_order(per_class: np.ndarray) -> TailOrder:
    """The order in which the classes of a source, with (K,) images, get from most to fewest images.

    The published protocol uses the class index, since its sources are balanced. If the largest class has more
    than twice the images of the smallest, frequency is used: the largest must not become the rarest.
    """
    return "frequency" if per_class.max() > BALANCED * per_class.min() else "class index"


def split_source(
    label: np.ndarray,
    n_classes: int,
    imbalance_factor: float | None,
    val_per_class: int,
    order: TailOrder | None = None,
    subset_seed: int = PROTOCOL_SEED,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose training images and a balanced validation split among a source's training images.

    Validation images come from those that the long-tailed subset leaves out, as far as a class has any, and
    otherwise from the end of the class's training images.

    Args:
        label: (N,) int class of every training image of the source; every class has at least one.
        n_classes: K.
        imbalance_factor: None keeps every image.
        val_per_class: validation images of each class, 0 for none.
        order: of the classes of a long-tailed subset; None for `tail_order`'s. Classes of equal size keep
            their order.
        subset_seed: of the images that each class keeps. With one seed, the subset of a larger factor lies
            in that of a smaller one; subsets of two seeds are drawn independently.

    Returns:
        (train_index, val_index), int64 indices into `label`, in order of class.

    Raises:
        UserError: a bad factor, or a class too small to spare `val_per_class` images.
    """
    per_class = np.bincount(label, minlength=n_classes)
    if imbalance_factor is None:
        counts = per_class.tolist()
    else:
        by_frequency = (order or tail_order(per_class)) == "frequency"
        largest_first = np.argsort(-per_class, kind="stable") if by_frequency else np.arange(n_classes)
        # Start from the smallest class's count, so that no class needs more images than it has.
        counts = np.empty(n_classes, np.int64)
        counts[largest_first] = long_tail_counts(int(per_class.min()), n_classes, imbalance_factor)
    rng = np.random.RandomState(subset_seed)
    train, val = [], []
    of_classes = np.split(np.argsort(label, kind="stable"), np.cumsum(per_class)[:-1])
    for class_id, (count, index) in enumerate(zip(map(int, counts), of_classes, strict=True)):
        rng.shuffle(index)
        # The subset is the first `count`; validation takes the rest first, then the end of the subset.
        n_train = min(count, len(index) - val_per_class)
        if n_train < 1:
            raise UserError(
                f"--val-per-class {val_per_class}: class {class_id} has {len(index)} training images, "
                "and at least one must remain for training"
            )
        train.append(index[:n_train])
        val.append(index[n_train : n_train + val_per_class])
    return np.concatenate(train), np.concatenate(val)
