"""Where the feature maps live during training: on the device, in the host's memory, or in the store.

Maps on the host are fused there, and only the augmented samples go to the device. Streamed maps are read
into a buffer on the host and fused the same way, so the two give the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch

from finetune.loading.free_memory import available_memory
from finetune.loading.upload import uploads_on
from finetune.mixing.fusion import Empty, fuse
from finetune.sampling.arrays import Array
from store.arrays.dtypes import computing_dtype, decode
from store.arrays.finite import first_not_finite
from store.arrays.gather import gather
from store.errors import UserError
from store.reader import FeatureStore

MAPS = "train/feature_map"
GIB = 2**30
SHARE = 0.5  # of free host memory for maps, unless --memory says otherwise
KEPT_FREE = 2 * GIB  # GPU memory left for windows, recorded steps and library workspaces
UPLOAD_BYTES = 64 * 1024**2  # maps in host memory at a time while they are uploaded to a GPU
Kind = Literal["device", "host", "stream"]


@dataclass(frozen=True)
class Residency:
    """Where the maps live.

    Attributes:
        kind: "device", "host" or "stream"; on a CPU the first two are the same.
        why: the reason, for the user.
        rows: maps that the memory of a stream holds; None if it holds all.
        memory: bytes for streamed maps.
        row_bytes: bytes of one map.
    """

    kind: Kind
    why: str
    rows: int | None = None
    memory: int = 0
    row_bytes: float = 0

    def fitting(self, window: int, rows: int) -> int:
        """The most iterations, up to `window`, whose maps fit in memory, with `rows` maps each.

        Raises:
            UserError: the maps of a single iteration do not fit.
        """
        if self.rows is None:
            return window
        if self.rows < rows:
            raise UserError(
                f"--memory {self.memory / GIB:.3g}: the maps of one iteration take "
                f"{rows * self.row_bytes / GIB:.3g} GiB; raise it, or lower --batch-size or --mix-share"
            )
        return min(window, self.rows // rows)


class Maps(Protocol):
    """Feature maps whose vectors can be fused."""

    def fused(self, vectors: Array, *rows: Array) -> torch.Tensor:
        """Means of vectors, on the device or on the host.

        Args:
            vectors: (..., L) int, each as row · L + position; on the device only where the maps are there.
            rows: arrays of any shape that hold all rows that the vectors come from.

        Returns:
            (..., C) float32.
        """


class VectorMaps(Maps, Protocol):
    """Feature maps of which single vectors can also be had."""

    def picked(self, vectors: Array, *rows: Array) -> torch.Tensor:
        """(..., C) vectors, of the maps' dtype; arguments as of `fused`, vectors in any shape."""


def memory_for_maps(device: torch.device) -> int:
    """Bytes free on a device; on a GPU, less what training needs besides maps."""
    if device.type == "cuda":
        return max(0, torch.cuda.mem_get_info(device)[0] - KEPT_FREE)
    return available_memory()


def share_for_maps(device: torch.device) -> float:
    """Share of `memory_for_maps` that maps may take: all of a GPU's, half of the host's."""
    return 1 if device.type == "cuda" else SHARE


def choose_residency(
    wanted: str,
    memory_gib: float | None,
    store: FeatureStore,
    device: torch.device,
    layer: str | None = None,
) -> Residency:
    """Choose where the maps of a store live.

    Args:
        wanted: a kind, or "auto": the first of device, host and stream that they fit.
        memory_gib: host memory for maps in GiB; None for half of what is free.
        store: the store.
        device: where the head is trained.
        layer: an earlier one whose maps it holds; None for the last one.

    Raises:
        UserError: the maps do not fit the kind that the user chose.
    """
    needed = store.maps(layer).n_bytes
    of_host = int(available_memory() * SHARE if memory_gib is None else memory_gib * GIB)
    room = {"device": memory_for_maps(device) if device.type == "cuda" else of_host, "host": of_host}
    fitting = [kind for kind in room if needed <= room[kind]]
    kind = next(iter(fitting), "stream") if wanted == "auto" else wanted
    size = f"{needed / GIB:.2f} GiB of feature maps"
    if kind in room and kind not in fitting:
        whose = f"on {device}" if kind == "device" and device.type == "cuda" else "(--memory)"
        raise UserError(
            f"--residency {kind}: {size}, but only {room[kind] / GIB:.1f} GiB for them {whose}; "
            "use --residency stream, or auto"
        )
    why = f"{size}, {'chosen by free memory' if wanted == 'auto' else 'as asked for'}"
    if kind != "stream" or "host" in fitting:
        return Residency(kind, why)
    row_bytes = needed / store.map_shape[0]
    return Residency(kind, why, int(of_host / row_bytes), of_host, row_bytes)


class HeldMaps:
    """All feature maps in memory, as one table of vectors (N · L, C).

    Attributes:
        device: where they are.
    """

    def __init__(self, table: torch.Tensor, empty: Empty | None = None):
        """The table, and what gives memory for means on the host; None for new memory."""
        self._table, self.device, self._empty = table, table.device, empty

    def fused(self, vectors: Array, *rows: Array) -> torch.Tensor:
        """See `Maps`."""
        return fuse(self._table, torch.as_tensor(vectors, device=self._table.device), self._empty)

    def picked(self, vectors: Array, *rows: Array) -> torch.Tensor:
        """See `VectorMaps`."""
        return _picked(self._table, torch.as_tensor(vectors, device=self._table.device))


class StreamedMaps:
    """Feature maps read when a window needs them, and kept while there is room.

    A ring buffer: the maps of a window that it lacks are read in storage order and overwrite the oldest ones.
    Maps of rare classes are drawn again and again, so they are seldom read again.
    """

    def __init__(self, store: FeatureStore, rows: int, layer: str | None = None, empty: Empty | None = None):
        """Allocate the buffer; nothing is read yet.

        Args:
            store: the store.
            rows: maps in the buffer; at least as many as any window needs.
            layer: an earlier one; None for the last one.
            empty: gives memory for means; None for new memory.
        """
        self._store, self._maps, self._empty = store, store.maps(layer), empty
        self._array = self._maps.array
        dtype = computing_dtype(self._maps.dtype) if self._maps.is_lossy else self._array.dtype
        self._ring = np.empty((rows, *self._array.shape[1:]), dtype)
        self._row_at = np.full(rows, -1)  # -1: empty
        n_vectors = rows * self._ring.shape[1] * self._ring.shape[2]
        dtype = np.int32 if n_vectors < 2**31 else np.int64
        self._place = np.full(self._array.shape[0], -1, dtype)  # place of each row in the ring; -1: absent
        self._next = 0

    def fused(self, vectors: np.ndarray, *rows: np.ndarray) -> torch.Tensor:
        """See `Maps`.

        Raises:
            StoreError: a file is missing or damaged, or a value is not finite.
        """
        return self._made(partial(fuse, empty=self._empty), vectors, rows)

    def picked(self, vectors: np.ndarray, *rows: np.ndarray) -> torch.Tensor:
        """See `VectorMaps`; errors as of `fused`."""
        return self._made(_picked, vectors, rows)

    def _made(
        self,
        make: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        vectors: np.ndarray,
        rows: tuple[np.ndarray, ...],
    ) -> torch.Tensor:
        """What `make` makes of the table of vectors and of places in it, once their maps are read."""
        needed = np.unique(np.concatenate([part.ravel() for part in rows]))
        self._read(self._make_room(needed))
        n_positions = self._ring.shape[1] * self._ring.shape[2]
        row, position = np.divmod(vectors, n_positions)
        places = torch.from_numpy(self._place[row] * n_positions + position)
        maps = self._ring
        if not self._maps.is_lossy:  # the buffer may hold raw bits of bfloat16
            maps = decode(maps, self._maps.dtype, None, computing_dtype(self._maps.dtype))
        made = make(_as_tensor(maps).reshape(-1, maps.shape[-1]), places)
        # The sum is a quick test; if it overflows by itself, the full test below settles it.
        if not made.sum().isfinite() and not made.isfinite().all():
            bad = first_not_finite(maps[self._place[needed]])
            self._store.check_finite_row(self._maps.path, None if bad is None else int(needed[bad]))
        return made

    def _make_room(self, rows: np.ndarray) -> np.ndarray:
        """Evict the oldest maps; returns the rows that must be read in their places."""
        missing = rows[self._place[rows] < 0]
        while True:
            places = (self._next + np.arange(len(missing))) % len(self._ring)
            overwritten = np.intersect1d(self._row_at[places], rows)
            if not np.setdiff1d(overwritten, missing).size:
                break
            missing = np.union1d(missing, overwritten)  # read again, in a later place
        gone = self._row_at[places]
        self._place[gone[gone >= 0]] = -1
        self._row_at[places], self._place[missing] = missing, places
        return missing

    def _read(self, rows: np.ndarray) -> None:
        """Read rows to the current place of the ring, wrapping around at its end."""
        until = min(len(rows), len(self._ring) - self._next)
        for part, start in ((rows[:until], self._next), (rows[until:], 0)):
            out = self._ring[start : start + len(part)]
            if self._maps.is_lossy:
                scale = self._maps.scale[part // self._maps.block_rows]
                codes = gather(self._array, part)
                out[:] = decode(codes, self._maps.dtype, scale, out.dtype)
            else:
                gather(self._array, part, out)
        self._next = (self._next + len(rows)) % len(self._ring)


def _picked(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Vectors (..., C) of a table (M, C) at places (...)."""
    return table.index_select(0, index.flatten()).view(*index.shape, -1)


def _as_tensor(maps: np.ndarray) -> torch.Tensor:
    if maps.dtype.name == "bfloat16":  # torch cannot convert it from numpy
        return torch.from_numpy(maps.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(maps)


def hold_maps(
    store: FeatureStore, residency: Residency, device: torch.device, layer: str | None = None
) -> VectorMaps:
    """The maps of a store, of its last layer or an earlier one, at the place chosen for them.

    Raises:
        StoreError: a value is not finite.
    """
    if residency.kind == "device" and device.type != "cpu":
        return HeldMaps(uploaded(store, device, layer))
    uploads = uploads_on(device)
    empty = None if uploads is None else uploads.buffers.take
    if residency.kind == "stream":
        rows = store.map_shape[0] if residency.rows is None else residency.rows
        return StreamedMaps(store, rows, layer, empty)
    maps = _as_tensor(store.read_feature_map(layer=layer))
    return HeldMaps(maps.reshape(-1, maps.shape[-1]), empty)


def uploaded(store: FeatureStore, device: torch.device, layer: str | None = None) -> torch.Tensor:
    """The maps of a layer as a table (N · L, C) on a device; host memory holds only a part at a time.

    Raises:
        StoreError: a value is not finite.
    """
    of_layer = store.maps(layer)
    n_rows, *of_map = of_layer.shape
    block = of_layer.block_rows  # read whole blocks, because compressed ones are decoded whole
    at_once = min(n_rows, block * max(1, int(UPLOAD_BYTES / (block * of_layer.n_bytes / n_rows))))
    dtype = getattr(torch, computing_dtype(of_layer.dtype).name)
    table = torch.empty(n_rows, *of_map, dtype=dtype, device=device)
    # Pinned: copies from pageable memory go through a small pinned buffer anyway.
    buffer = torch.empty(at_once, *of_map, dtype=dtype, pin_memory=device.type == "cuda")
    for start in range(0, n_rows, at_once):
        maps = _as_tensor(of_layer.read(start, start + at_once))
        part = buffer[: len(maps)].copy_(maps)
        table[start : start + len(maps)].copy_(part)
    return table.reshape(-1, of_map[-1])
