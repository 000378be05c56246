"""Size of a store, computed from its layout."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from store.arrays.shard import index_bytes, raw_shard
from store.layout import ArrayLayout


@dataclass(frozen=True)
class StoreSize:
    """Space that a store takes on disk.

    Attributes:
        n_bytes: bytes of rows and, in zarr, of padding to whole chunks and the index in each shard. Metadata,
            about a KiB per array, is not counted.
        peak_bytes: most bytes while it is written.
        n_files: files of the finished store.
        n_shards: how many of them are shards; 0 for HDF5.
    """

    n_bytes: int
    peak_bytes: int
    n_files: int
    n_shards: int


def store_size(
    suffix: str, layouts: dict[str, ArrayLayout], packed_share: float | Mapping[str, float] = 1.0
) -> StoreSize:
    """The size of a store; exact without compression.

    Args:
        suffix: ".zarr" or ".h5".
        layouts: layout of every array, by path.
        packed_share: compressed over uncompressed bytes of a chunk, for arrays with a codec; for all of them,
            or by path.
    """
    of_paths = packed_share if isinstance(packed_share, Mapping) else dict.fromkeys(layouts, packed_share)
    shares = {path: of_paths.get(path, 1.0) for path in layouts}
    in_shards = sum(shard_bytes(layout, shares[path]) for path, layout in layouts.items())
    if suffix == ".zarr":
        n_shards = sum(layout.n_blocks for layout in layouts.values())
        return StoreSize(in_shards, in_shards, n_shards + len(layouts) + _n_groups(layouts), n_shards)
    in_file = sum(dataset_bytes(layout, shares[path]) for path, layout in layouts.items())
    packed = any(layout.codec != "none" for layout in layouts.values())
    # A compressed file is assembled from shards, which are removed afterwards.
    return StoreSize(in_file, in_file + in_shards if packed else in_file, n_files=1, n_shards=0)


def shard_bytes(layout: ArrayLayout, packed_share: float = 1.0) -> int:
    """Bytes of an array's shards."""
    if layout.codec != "none":
        return dataset_bytes(layout, packed_share) + layout.n_blocks * index_bytes(layout)
    start, stop = layout.block(layout.n_blocks - 1)
    whole, _ = raw_shard(layout, layout.block_rows)
    last, _ = raw_shard(layout, stop - start)
    return (layout.n_blocks - 1) * whole + last


def dataset_bytes(layout: ArrayLayout, packed_share: float = 1.0) -> int:
    """Bytes of an array's rows; padded to whole chunks if compressed."""
    if layout.codec == "none":
        return layout.n_bytes
    n_rows = math.ceil(layout.shape[0] / layout.chunk_rows) * layout.chunk_rows
    return math.ceil(n_rows * layout.row_bytes * packed_share)


def _n_groups(layouts: dict[str, ArrayLayout]) -> int:
    """Number of groups in the tree, including its root."""
    groups = {""}
    for path in layouts:
        parts = path.split("/")
        groups |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return len(groups)
