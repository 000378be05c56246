"""Where and how a phase computes: device, precision, batches, worker processes."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from extract.device_names import unknown_device
from store.errors import UserError

_setting_threads = Lock()


@dataclass(frozen=True)
class Compute:
    """How a network is run on images.

    Attributes:
        device: where the network lives.
        precision: "fp32", or "bf16" for bfloat16 autocast.
        batch_size: images in a batch.
        workers: processes that decode images that are not in memory.
    """

    device: torch.device
    precision: str
    batch_size: int
    workers: int

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last on a GPU, where it is faster; first on a CPU, on which features depend on it in bits.

        Training has its own, see `extract.training.layout`.
        """
        on_gpu = self.device.type == "cuda"
        return torch.channels_last if on_gpu else torch.contiguous_format

    def autocast(self) -> AbstractContextManager:
        """bfloat16 autocast for bf16, nothing for fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def resolve_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.

    `cuda` without a number is the process's current GPU, by default the first; it is returned with its
    number, which making it the current one needs.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise unknown_device(name)
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= n_devices:
        raise UserError(f"--device {name}: this machine has {n_devices} CUDA devices; use auto or cpu")
    if device.type == "cuda" and device.index is None:
        # Asking for the current one would initialise the first, which takes a moment.
        return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)
    return device


def use_device(device: torch.device) -> torch.device:
    """Make a GPU the calling thread's current one, which libraries use by default.

    Returns:
        The device itself.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MOST_MMAP_THRESHOLD = 32 * 1024**2


def keep_freed_memory() -> None:
    """Make the C library keep the memory that a batch frees, since the next batch needs as much.

    glibc otherwise returns large blocks to the kernel, depending on where they happen to be. Getting them
    back page by page took up to a fifth of the time of a ResNet-18 of width 16 on two cores. Does nothing
    with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MOST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def set_threads_here(n: int) -> None:
    """Set torch's number of threads for the calling thread only.

    `torch.set_num_threads` also affects every thread that first uses torch later: a thread that the user
    starts during a run would keep the run's number forever. And a new thread takes the number of new threads
    when it first asks for it, or computes; this one asks before, so that it does not lose its own.
    """
    with _setting_threads, ThreadPoolExecutor(1) as new_thread:
        torch.get_num_threads()
        of_new_threads = new_thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(n)
        new_thread.submit(torch.set_num_threads, of_new_threads).result()


def make_deterministic() -> None:
    """Make a GPU give the same result every time, in full float32; a CPU does so anyway.

    TensorFloat-32 would round the factors of products and convolutions to 11 bits. PyTorch uses it for
    convolutions by default, some containers set it for products too, and a program that imports us may have
    set it, or bfloat16 on the CPU.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for place in float32_precisions():
        place.fp32_precision = "ieee"


def float32_precisions() -> list[Any]:
    """Where torch keeps in which precision it computes with float32, the general before the particular.

    An `fp32_precision` of "none" is that of what is more general. Torch before 2.9 had none of them; once a
    program sets one, torch refuses to read the older settings beside them.
    """
    backends = torch.backends
    places = [backends]
    for library, kinds in {
        "cudnn": ("conv", "rnn"),
        "cuda": ("matmul",),
        "mkldnn": ("matmul", "conv", "rnn"),
    }.items():
        of_library = getattr(backends, library)
        places += [of_library, *(getattr(of_library, kind, None) for kind in kinds)]
    return [place for place in places if hasattr(place, "fp32_precision")]
