"""Several batches in one SGD step, where a batch of all their images would not fit in memory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """The place of a batch in its SGD step.

    Attributes:
        share: its images as a share of the step's.
        first, last: whether the step begins and ends with it.
    """

    share: float = 1.0
    first: bool = True
    last: bool = True


ALONE = Turn()


@dataclass(frozen=True)
class Accumulation:
    """The batches of an epoch in groups; a group is one SGD step, and the epoch's last may be smaller.

    Attributes:
        n_batches: in a group.
        batch_size: images in a batch, fewer in the epoch's last.
        n_images: in an epoch.
    """

    n_batches: int
    batch_size: int
    n_images: int

    def turn(self, batch: int) -> Turn:
        """The place of a batch, by its number in the epoch from 0."""
        if self.n_batches == 1:
            return ALONE
        begin = self.first_of(batch) * self.batch_size
        n_step = min(self.n_batches * self.batch_size, self.n_images - begin)
        start = batch * self.batch_size
        n_own = min(self.batch_size, self.n_images - start)
        return Turn(n_own / n_step, start == begin, start + n_own == begin + n_step)

    def first_of(self, batch: int) -> int:
        """The number of the first batch of the same step, whose learning rate the step has."""
        return batch - batch % self.n_batches
