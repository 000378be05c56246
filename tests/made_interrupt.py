"""A fine-tuning that Ctrl-C ends, so that it can be resumed."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress

from finetune.config import FinetuneConfig
from finetune.run_folder import unfinished_path
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from store.errors import Interrupted


def finetune_interrupted(config: FinetuneConfig, is_due: Callable[[int, int], bool]) -> None:
    """Fine-tune until Ctrl-C comes at a window.

    Args:
        config: of the run, which is left unfinished.
        is_due: whether it comes, given how many windows began (this one too) and its first iteration.
    """
    train_on, begun = HeadPool.train_on, itertools.count(1)

    def train_until(self, window):
        if is_due(next(begun), window.start):
            raise KeyboardInterrupt
        return train_on(self, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeadPool, "train_on", train_until)
        with pytest.raises(Interrupted):
            finetune(config, Progress(disable=True))
    assert not Path(config.out).exists()
    assert unfinished_path(config.out).exists()
