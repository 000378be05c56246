"""The state within an interrupted epoch, saved beside the checkpoint that the epoch started from.

The checkpoint itself is always that of a whole epoch, so that nobody reads one from the middle of an epoch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from extract.checkpoints.torch_files import TorchFormat, read_torch_file
from extract.training.optimisation.optimizer import Optimizer
from extract.training.profile import WRITING, Profile
from store.errors import UserError
from store.notes import note
from store.storage.atomic import whole_file

NAME = "unfinished_epoch.pt"
ADVICE = "remove it, and --resume starts that epoch over"
SUMS = ("step", "loss", "n_correct", "generator", "seconds")
EPOCH_FORMAT = TorchFormat(
    "the state of an interrupted epoch",
    "tailcache-unfinished-epoch",
    ADVICE,
    ("history", "epoch", "state", "optimizer", *SUMS),
)


@dataclass
class EpochState:
    """The state within an epoch.

    Attributes:
        epoch: finished epochs before it.
        step: batches trained on.
        loss, n_correct: () float32 sums over the images of these batches.
        generator: state of the epoch's generator after them; None before the first.
        seconds: time that they took, and the checkpoint before them to be written.
        spent: what that time went to, see Profile.
        is_whole: whether network and optimiser are in the state after a batch, not in the middle of one.
    """

    epoch: int
    step: int
    loss: torch.Tensor
    n_correct: torch.Tensor
    generator: torch.Tensor | None = None
    seconds: float = 0.0
    is_whole: bool = True
    spent: dict[str, float] = field(default_factory=lambda: Profile().spent)

    @classmethod
    def empty(cls, epoch: int, device: torch.device, written: float = 0.0) -> "EpochState":
        """Before the first batch, after a checkpoint that took some seconds to be written."""
        spent = Profile().spent | {WRITING: written}
        sums = torch.zeros((), device=device), torch.zeros((), device=device)
        return cls(epoch, 0, *sums, seconds=written, spent=spent)

    def take_time(self, seconds: float, profile: Profile) -> None:
        """Keep how long the batches took, and where that time went."""
        self.seconds, self.spent = seconds, dict(profile.spent)


def save_epoch(
    out: Path,
    optimizer: Optimizer,
    epoch_state: EpochState,
    history: list[dict[str, Any]],
) -> None:
    """Save the state within an epoch, whole or not at all.

    Args:
        out: folder of the run.
        optimizer: after the last batch, with its network.
        epoch_state: the state.
        history: rows of epochs; those before this one identify the checkpoint that it started from.
    """
    content = EPOCH_FORMAT.marks | {
        "history": history[: epoch_state.epoch],
        "epoch": epoch_state.epoch,
        "state": optimizer.kept_weights(),
        "optimizer": optimizer.state_dict(),
        "step": epoch_state.step,
        "loss": epoch_state.loss.cpu(),
        "n_correct": epoch_state.n_correct.cpu(),
        "generator": epoch_state.generator,
        "seconds": epoch_state.seconds,
        "spent": epoch_state.spent,
    }
    with whole_file(out / NAME) as unfinished, unfinished.open("wb") as file:
        torch.save(content, file)


def read_epoch(out: Path, history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The saved state of the epoch that was interrupted after some others; None if there is none.

    Args:
        out: folder of the run.
        history: the checkpoint's.

    Raises:
        UserError: the file is damaged.
    """
    if not (out / NAME).exists():
        return None
    content = read_torch_file(out / NAME, EPOCH_FORMAT)
    same = (content["epoch"], content["history"]) == (len(history), history)
    return content if same else None  # else of an earlier epoch, left behind by a kill


def restore_epoch(
    content: dict[str, Any], out: Path, optimizer: Optimizer, device: torch.device
) -> EpochState:
    """Put network and optimiser into the state within an epoch.

    Args:
        content: of `read_epoch`.
        out: folder of the run.
        optimizer: as in the checkpoint, with its network.
        device: of the sums.

    Raises:
        UserError: it is not that of this network.
    """
    try:
        epoch_state = EpochState(
            content["epoch"],
            content["step"],
            content["loss"].to(device),
            content["n_correct"].to(device),
            content["generator"],
            content["seconds"],
        )
        epoch_state.spent |= content.get("spent", {})  # which early versions did not save
        optimizer.network.load_state_dict(content["state"])
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{out / NAME}: damaged, or of another network; {ADVICE}") from error
    note(f"{out}: resumes within epoch {epoch_state.epoch + 1}, after {epoch_state.step} batches")
    return epoch_state


def forget_epoch(out: Path) -> None:
    """Remove the saved state of an epoch."""
    (out / NAME).unlink(missing_ok=True)
