"""The first accuracy of a network that another program trained, before the long pass over all images."""

import numpy as np
from rich.progress import Progress

from analysis.accuracy import balanced_accuracy
from analysis.chance import better_order, is_at_chance
from extract.checkpoints.restore import Restored
from extract.device import Compute
from extract.inference import by_class, predict
from store.names import shown
from store.notes import note

MOST = 2_000  # test images, which take seconds to minutes


def tell_first_accuracy(restored: Restored, compute: Compute, progress: Progress) -> None:
    """Note the accuracy on the test images, or on some that the seed draws, and what speaks against it.

    That is an accuracy of chance, or one that another order of classes would raise.
    """
    test = by_class(restored.dataset.test)
    n_all = len(test)
    if n_all > MOST:
        generator = np.random.default_rng(restored.checkpoint.config["seed"])
        test = test.take(np.sort(generator.choice(n_all, MOST, replace=False)))
    predicted = predict(restored.network, test, restored.transform, compute, progress)
    n_correct, balanced = int((predicted == test.label).sum()), balanced_accuracy(test.label, predicted)
    of = f"{len(test):,} test images" + (f", drawn of {n_all:,}" if n_all > MOST else "")
    note(
        f"first accuracy, before anything was fine-tuned: {100 * n_correct / len(test):.1f} % of {of} "
        f"(class mean {balanced:.1f} %)"
    )
    names = restored.dataset.class_names
    found = better_order(test.label, predicted, len(names))
    if found is not None:
        _note_order(*found, names)
    elif is_at_chance(test.label, predicted):
        note(
            "that is no better than chance: check that the weights are those of a network trained on these "
            "classes, their order (--class-names), the normalisation (--mean, --std) and --image-size"
        )


def _note_order(accuracy: float, class_of: np.ndarray, names: list[str]) -> None:
    moved = np.flatnonzero(class_of != np.arange(len(names)))
    pairs = ", ".join(f"{shown(names[k])} is {shown(names[class_of[k]])}" for k in moved[:3])
    note(
        f"the order of classes seems to be another: as many as {accuracy:.1f} % would be right if "
        f"{len(moved):,} of {len(names):,} outputs changed places (what is taken for {pairs}"
        f"{', …' if len(moved) > 3 else ''}); name the right order with --class-names FILE"
    )
