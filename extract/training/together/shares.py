"""What processes that train together must have in common, and batches that can be shared out."""

from extract.config import TrainConfig
from extract.training.interrupted.resume import flat_options
from store.errors import UserError
from store.options import flag

OF_MACHINE = ("device", "workers")  # options that may differ from process to process


def options_in_lines(config: TrainConfig) -> str:
    """The options that must be those of every process, a line each."""
    options = flat_options(config)
    return "\n".join(f"{flag(name)} {options[name]!r}" for name in sorted(options.keys() - set(OF_MACHINE)))


def check_shares(config: TrainConfig, world: int) -> None:
    """Raise UserError for batches of fewer images than processes.

    Args:
        config: resolved.
        world: number of processes.
    """
    if config.batch_size < world:
        raise UserError(
            f"--batch-size {config.batch_size}: is shared out among {world} processes, which need an image "
            "each; raise it, or start fewer"
        )


def check_last_batch(config: TrainConfig, n_images: int, world: int) -> None:
    """Raise UserError for an epoch whose last batch has fewer images than there are processes."""
    last = n_images % config.batch_size or config.batch_size
    if min(last, n_images) < world:
        raise UserError(
            f"--batch-size {config.batch_size}: leaves {min(last, n_images)} of {n_images:,} training images "
            f"for an epoch's last batch, too few for {world} processes; choose another --batch-size"
        )
