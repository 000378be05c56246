"""Settings of the process and its threads, which runs change while they compute and then restore.

Runs may share a process, each in its own thread.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

import torch

from extract.device import float32_precisions


class Borrowed:
    """Settings of the whole process: the first run to borrow them saves them, the last one restores them."""

    def __init__(self, read: Callable[[], Any], restore: Callable[[Any], None]):
        self._read, self._restore = read, restore
        self._lock, self._users, self._before = Lock(), set(), None

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Settings may be changed within this block."""
        user = object()
        try:  # from here on: Ctrl-C between two lines must not leave a user who never returns
            with self._lock:
                if not self._users:
                    self._before = self._read()
                self._users.add(user)
            yield
        finally:
            with self._lock:
                if user in self._users:
                    self._users.remove(user)
                    if not self._users:
                        self._restore(self._before)


def _torch_settings() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    found = {"deterministic": cudnn.deterministic, "benchmark": cudnn.benchmark}
    with suppress(RuntimeError):  # torch refuses these if the caller has set their replacements
        found["allow_tf32"] = cudnn.allow_tf32
    with suppress(RuntimeError):
        found["matmul"] = torch.get_float32_matmul_precision()
    return found | {"float32": [place.fp32_precision for place in float32_precisions()]}


def _set_torch(settings: dict[str, Any]) -> None:
    for name in settings.keys() & {"deterministic", "benchmark", "allow_tf32"}:
        setattr(torch.backends.cudnn, name, settings[name])
    if "matmul" in settings:
        torch.set_float32_matmul_precision(settings["matmul"])
    for place, precision in zip(float32_precisions(), settings["float32"], strict=True):
        place.fp32_precision = "none"
        if place.fp32_precision != precision:  # it was set here, not inherited from a more general setting
            place.fp32_precision = precision


def _set_switch_interval(seconds: float) -> None:
    sys.setswitchinterval(seconds + 5e-7)  # Python truncates to whole microseconds


TORCH = Borrowed(_torch_settings, _set_torch)  # what `make_deterministic` sets
SWITCH_INTERVAL = Borrowed(sys.getswitchinterval, _set_switch_interval)


@contextmanager
def current_gpu_kept() -> Iterator[None]:
    """Restore the calling thread's current GPU at the end, without initialising CUDA."""
    before = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    try:
        yield
    finally:
        if torch.cuda.is_initialized() and torch.cuda.current_device() != before:
            torch.cuda.set_device(torch.device("cuda", before))
