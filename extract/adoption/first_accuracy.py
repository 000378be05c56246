"""The first accuracy of a network that another program trained, before the long pass over all images."""

import numpy as np
from rich.progress import Progress

from analysis.accuracy import balanced_accuracy
from analysis.chance import is_at_chance
from extract.checkpoints.restore import Restored
from extract.device import Compute
from extract.inference import by_class, predict
from store.notes import note

MOST = 2_000  # test images, which take seconds to minutes


def tell_first_accuracy(restored: Restored, compute: Compute, progress: Progress) -> None:
    """Note the accuracy on the test images, or on some that the seed draws, and whether it is at chance."""
    test = by_class(restored.dataset.test)
    n_all = len(test)
    if n_all > MOST:
        generator = np.random.default_rng(restored.checkpoint.config["seed"])
        test = test.take(np.sort(generator.choice(n_all, MOST, replace=False)))
    predicted = predict(restored.network, test, restored.transform, compute, progress)
    n_correct = int((predicted == test.label).sum())
    of = f"{len(test):,} test images" + (f", drawn of {n_all:,}" if n_all > MOST else "")
    balanced = balanced_accuracy(test.label, predicted)
    note(
        f"first accuracy, before anything was fine-tuned: {100 * n_correct / len(test):.1f} % of {of} "
        f"(class mean {balanced:.1f} %)"
    )
    if is_at_chance(test.label, predicted):
        note(
            "that is no better than chance: check the order of classes (--class-names), the normalisation "
            "(--mean, --std) and the image size (--image-size) that the network was trained with"
        )
