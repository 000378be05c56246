"""What an epoch on its way has come to, kept beside the checkpoint that it began from.

The checkpoint itself is always that of a whole epoch, so that whoever reads it never meets one half done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extract.networks.parts import Network
from extract.torch_files import Kind, read_torch_file
from store.errors import UserError
from store.notes import note
from store.storage.atomic import whole_file

NAME = "unfinished_epoch.pt"
ADVICE = "remove it, and the epoch that it is of begins anew with --resume"
SUMS = ("step", "loss", "n_correct", "generator", "seconds")
KIND = Kind(
    "what an epoch on its way came to",
    "tailcache-unfinished-epoch",
    ADVICE,
    ("history", "epoch", "state", "optimizer", *SUMS),
)


@dataclass
class SoFar:
    """What has come together in an epoch.

    Attributes:
        epoch: finished epochs before it.
        step: batches trained on.
        loss, n_correct: () float32 sums over the images of those.
        generator: state of the epoch's generator after them; None before the first.
        seconds: that they took.
        is_whole: whether network and optimiser are as the last of them left them, not in the middle of one.
    """

    epoch: int
    step: int
    loss: torch.Tensor
    n_correct: torch.Tensor
    generator: torch.Tensor | None = None
    seconds: float = 0.0
    is_whole: bool = True

    @classmethod
    def none(cls, epoch: int, device: torch.device) -> "SoFar":
        """Before the first batch."""
        return cls(epoch, 0, torch.zeros((), device=device), torch.zeros((), device=device))


def save_epoch(
    out: Path, network: Network, optimizer: torch.optim.SGD, so_far: SoFar, history: list[dict[str, Any]]
) -> None:
    """Keep an epoch on its way, whole or not at all.

    Args:
        out: folder of the run.
        network, optimizer: after the last batch.
        so_far: the epoch.
        history: rows of epochs; those before this one tell which checkpoint it began from.
    """
    content = KIND.marks | {
        "history": history[: so_far.epoch],
        "epoch": so_far.epoch,
        "state": {name: tensor.cpu() for name, tensor in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "step": so_far.step,
        "loss": so_far.loss.cpu(),
        "n_correct": so_far.n_correct.cpu(),
        "generator": so_far.generator,
        "seconds": so_far.seconds,
    }
    with whole_file(out / NAME) as unfinished, unfinished.open("wb") as file:
        torch.save(content, file)


def load_epoch(
    out: Path,
    network: Network,
    optimizer: torch.optim.SGD,
    history: list[dict[str, Any]],
    device: torch.device,
) -> SoFar:
    """Bring network and optimiser to where an interrupted epoch left them; nothing where there is none.

    Args:
        out: folder of the run.
        network, optimizer: as the checkpoint has them.
        history: the checkpoint's.
        device: where the sums are to live.
    """
    path, epoch = out / NAME, len(history)
    if not path.exists():
        return SoFar.none(epoch, device)
    content = read_torch_file(path, KIND)
    if (content["epoch"], content["history"]) != (epoch, history):
        return SoFar.none(epoch, device)  # of an earlier epoch, left by a kill
    try:
        so_far = SoFar(
            epoch,
            content["step"],
            content["loss"].to(device),
            content["n_correct"].to(device),
            content["generator"],
            content["seconds"],
        )
        network.load_state_dict(content["state"])
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged, or of another network; {ADVICE}") from error
    note(f"{out}: goes on within epoch {epoch + 1}, after {so_far.step} batches")
    return so_far


def forget_epoch(out: Path) -> None:
    """Remove what was kept of an epoch."""
    (out / NAME).unlink(missing_ok=True)
