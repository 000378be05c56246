"""What all functions behind `import tailcache` share: paths of any type, progress, and borrowed settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from rich.progress import Progress

from finetune.commands.console import progress_bar
from finetune.settings import TORCH, current_gpu_kept

Place = str | PathLike[str]


def path_text(path: Place) -> str:
    """A path as text, with `~` for the home folder replaced."""
    return os.path.expanduser(os.fsdecode(path))


@contextmanager
def computing(progress: bool) -> Iterator[Progress]:
    """The command line's progress bar, or a hidden one; restores the caller's torch settings at the end."""
    with TORCH.borrowed(), current_gpu_kept(), progress_bar() if progress else Progress(disable=True) as bar:
        yield bar
