"""Losses that stay on a GPU until somebody looks: bringing those of a window waits for its steps."""

import torch

from finetune.loading.window import Window
from finetune.training.history import HeadHistory, Steps

MOST = 256  # windows; so much is kept of each row's number for the message about a loss that is not finite


def windows_that_wait(device: torch.device) -> int:
    """Windows whose losses are brought over together, at most: one on a CPU, where they are at hand."""
    return 1 if device.type == "cpu" else MOST


class PendingLosses:
    """Losses of windows in the order of their steps, not yet part of the heads' histories."""

    def __init__(self, most: int):
        """Keep those of so many windows at most."""
        self._most = most
        self._waiting: list[tuple[Steps, torch.Tensor]] = []

    def add(self, window: Window, losses: torch.Tensor) -> None:
        """Keep the (T, S) float64 losses of a window, on any device; nothing else of it stays in memory."""
        self._waiting.append((Steps.of(window), losses))

    @property
    def is_full(self) -> bool:
        """Whether they must be brought over before the next window."""
        return len(self._waiting) >= self._most

    def bring_to(self, histories: list[HeadHistory]) -> None:
        """Move them into the histories of the S heads; waits for the device once."""
        if not self._waiting:
            return
        losses = torch.cat([of_window for _, of_window in self._waiting]).cpu()
        lengths = [len(of_window) for _, of_window in self._waiting]
        for (steps, _), of_window in zip(self._waiting, losses.split(lengths), strict=True):
            for history, of_head in zip(histories, of_window.T, strict=True):
                history.add_steps(steps, of_head)
        self._waiting.clear()
