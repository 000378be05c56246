"""How a store's arrays are cut: rows in chunks, chunks in blocks.

A block is what is written, synced and committed at once: one shard, that is one file, of a zarr array, or
one run of rows of an HDF5 dataset. Arrays that the network fills (pooled features, maps, CAMs) share the
blocks of their split, which are whole numbers of batches, in all views of their images: an extraction that
goes on after a block brings the same batches through the network as one that never stopped. Everything known
beforehand (labels, the FC layer, checksums) is one block. Of a lossy dtype's scales each row belongs to a
block of maps, and is a block.
"""

import math
from dataclasses import dataclass

import numpy as np

from store.schema import (
    CHECKSUM,
    CLASSIFIER,
    OF_IMAGES,
    OF_ROOT,
    SCALE,
    SCALED,
    STREAMED,
    ArraySpec,
    split_arrays,
)

CHUNK_BYTES = 128 * 1024  # one large map, or a run of small ones: small enough for random rows
PACKED_CHUNK_BYTES = 16 * 1024  # the same before compression, for a chunk is decoded whole
BLOCK_BYTES = 64 * 1024**2  # of a split's widest array, as it is computed


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, dtype (numpy's name), cut and codec of one array; a block is a whole number of chunks."""

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    block_rows: int
    codec: str = "none"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def n_blocks(self) -> int:
        """Blocks of the array, the last one often partly filled."""
        return math.ceil(self.shape[0] / self.block_rows)

    def block(self, index: int) -> tuple[int, int]:
        """First row of a block, and the row after its last."""
        start = index * self.block_rows
        return start, min(start + self.block_rows, self.shape[0])

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class Cut:
    """How large chunks and blocks are to be, where they are not those of an extraction.

    Attributes:
        chunk_bytes: a chunk has at most so many, before compression; None for CHUNK_BYTES and its like.
        block_bytes: a block has at most so many of its split's widest array, but one row at least; None for
            whole batches, as many as BLOCK_BYTES hold.
        train_rows: rows of the train split's blocks, which scales may fix; None leaves them to their bytes.
    """

    chunk_bytes: int | None = None
    block_bytes: int | None = None
    train_rows: int | None = None


EXTRACTED = Cut()


def store_layout(
    sizes: dict[str, dict[str, int]],
    n_classes: int,
    map_dtype: str,
    batch_size: int,
    codec: str = "none",
    cut: Cut = EXTRACTED,
    n_views: int = 1,
) -> dict[str, ArrayLayout]:
    """The layout of every array of a store, by its path in the tree.

    Args:
        sizes: lengths of the axes N, H, W, C of each split, and of D and T where it is to hold digests and
            names of its images.
        n_classes: K.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        batch_size: images that go through the network at a time.
        codec: of the feature maps, a member of CODECS.
        cut: how large chunks and blocks are to be.
        n_views: rows of each training image.
    """
    layouts = {name: _whole((1,), spec.dtype) for name, spec in OF_ROOT.items()}
    of_classifier = {"K": n_classes, "C": sizes["train"]["C"]}
    for name, spec in CLASSIFIER.items():
        layouts[f"classifier/{name}"] = _whole(tuple(of_classifier[a] for a in spec.axes), spec.dtype)
    for split, lengths in sizes.items():
        specs = split_arrays(split, map_dtype)
        specs |= {name: spec for name, spec in OF_IMAGES.items() if spec.axes[1] in lengths}
        batch_rows = batch_size * n_views if split == "train" else batch_size
        block_rows = _block_rows(specs, lengths, map_dtype, batch_rows, cut)
        lengths = lengths | {"n": math.ceil(lengths["N"] / block_rows)}
        for name, spec in specs.items():
            shape = tuple(lengths[axis] for axis in spec.axes)
            if name in STREAMED:
                of_maps = codec if name == "feature_map" else "none"
                layouts[f"{split}/{name}"] = _streamed(
                    shape, spec.dtype, block_rows, of_maps, cut.chunk_bytes
                )
            elif name == SCALE:
                layouts[f"{split}/{name}"] = ArrayLayout(shape, spec.dtype, chunk_rows=1, block_rows=1)
            else:
                layouts[f"{split}/{name}"] = _whole(shape, spec.dtype)
    n_blocks = {path: layout.n_blocks for path, layout in layouts.items()} | {"metadata": 1}
    return layouts | {f"{CHECKSUM}/{path}": _whole((n,), "uint32") for path, n in n_blocks.items()}


def _block_rows(
    specs: dict[str, ArraySpec], lengths: dict[str, int], map_dtype: str, batch_rows: int, cut: Cut
) -> int:
    """Rows of a block of a split: whole batches, as many as BLOCK_BYTES hold of its widest array.

    Of a size asked for, they are a power of two, which chunks of any array divide well.
    """
    if "feature_map" in specs and cut.train_rows:
        return cut.train_rows
    widest = 0
    for name in STREAMED:
        if name in specs:
            size = (
                4 if name == "feature_map" and map_dtype in SCALED else np.dtype(specs[name].dtype).itemsize
            )
            widest = max(widest, size * math.prod(lengths[axis] for axis in specs[name].axes[1:]))
    if cut.block_bytes:
        fitting = max(1, cut.block_bytes // widest).bit_length() - 1
        return 2 ** min(fitting, (lengths["N"] - 1).bit_length())
    batches = min(BLOCK_BYTES // (widest * batch_rows), math.ceil(lengths["N"] / batch_rows))
    return max(1, batches) * batch_rows


def _whole(shape: tuple[int, ...], dtype: str) -> ArrayLayout:
    return ArrayLayout(shape, dtype, chunk_rows=shape[0], block_rows=shape[0])


def _streamed(
    shape: tuple[int, ...], dtype: str, block_rows: int, codec: str, chunk_bytes: int | None
) -> ArrayLayout:
    chunk_bytes = chunk_bytes or (CHUNK_BYTES if codec == "none" else PACKED_CHUNK_BYTES)
    fitting = max(1, chunk_bytes // (math.prod(shape[1:]) * np.dtype(dtype).itemsize))
    chunk_rows = max(rows for rows in range(1, min(fitting, block_rows) + 1) if block_rows % rows == 0)
    return ArrayLayout(shape, dtype, chunk_rows, block_rows, codec)
