"""The first accuracy of a network that another program trained, before the long pass over all images."""

from dataclasses import replace

import numpy as np
from rich.progress import Progress

from analysis.accuracy import balanced_accuracy
from analysis.chance import better_order, is_at_chance
from extract.dataset import Dataset
from extract.device import Compute
from extract.images.image_set import find_unreadable
from extract.images.transforms import Transform
from extract.inference.passes import by_class, predict
from extract.networks.parts import Network
from store.errors import UserError
from store.names import shown
from store.notes import note

MOST = 2_000  # test images, which take seconds to minutes


class FirstAccuracy:
    """The accuracy on the test images, or on some that a seed draws; it is told once.

    It needs no other images, unless they have 16 bits: what scales those is found in all of them.
    """

    def __init__(self, network: Network, dataset: Dataset, seed: int):
        """Draw the images.

        Args:
            network: on the device.
            dataset: with decoded images, or files.
            seed: random seed of the draw.
        """
        self._network, self._names, self._n_all = network, dataset.class_names, len(dataset.test)
        self._test, self._told = by_class(dataset.test), False
        if self._n_all > MOST:
            drawn = np.random.default_rng(seed).choice(self._n_all, MOST, replace=False)
            self._test = self._test.take(np.sort(drawn))

    def tell_early(self, transform: Transform, compute: Compute, progress: Progress) -> None:
        """Tell it before other images are read, if these tell how they are read.

        Raises:
            UserError: an image cannot be read.
        """
        if not self._test.in_memory:
            bad, found = find_unreadable(self._test.images, progress)
            if bad:
                raise UserError(bad[min(bad)])
            self._test = replace(self._test, **found)
        depth = self._test.depth
        if self._test.in_memory or not depth[:, 1].any():
            self.tell(transform, compute, progress)

    def tell(self, transform: Transform, compute: Compute, progress: Progress) -> None:
        """Note it, with what speaks against it: chance, or another order of classes that would raise it."""
        if self._told:
            return
        self._told, label = True, self._test.label
        predicted = predict(self._network, self._test, transform, compute, progress)
        share, balanced = 100 * np.mean(predicted == label), balanced_accuracy(label, predicted)
        of = f"{len(label):,} test images" + (f", drawn of {self._n_all:,}" if self._n_all > MOST else "")
        note(
            f"first accuracy, before anything was fine-tuned: {share:.1f} % of {of} (class mean "
            f"{balanced:.1f} %)"
        )
        found = better_order(label, predicted, len(self._names))
        if found is not None:
            _note_order(*found, self._names)
        elif is_at_chance(label, predicted):
            note(
                "that is no better than chance: check that the weights are of a network that was trained "
                "on these classes, their order (--class-names), the normalisation (--mean, --std) and "
                "--image-size"
            )


def _note_order(accuracy: float, class_of: np.ndarray, names: list[str]) -> None:
    moved = np.flatnonzero(class_of != np.arange(len(names)))
    pairs = ", ".join(f"{shown(names[k])} is {shown(names[class_of[k]])}" for k in moved[:3])
    note(
        f"the order of classes seems to be another: as many as {accuracy:.1f} % would be right if "
        f"{len(moved):,} of {len(names):,} outputs changed places (what is taken for {pairs}"
        f"{', …' if len(moved) > 3 else ''}); name the right order with --class-names FILE"
    )
