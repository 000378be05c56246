"""How much room a store takes, from its layout alone."""

import math
from dataclasses import dataclass

from store.arrays.shard import index_bytes, raw_shard
from store.layout import ArrayLayout


@dataclass(frozen=True)
class StoreSize:
    """What a store takes on the disk.

    Attributes:
        n_bytes: of rows and, in zarr, what goes with them into a shard: zeros up to a whole chunk, and the
            index of chunks. Metadata, about a KiB an array, are not counted.
        peak_bytes: at most while it is written.
        n_files: of the finished store.
        n_shards: of them, files of rows; none in HDF5.
    """

    n_bytes: int
    peak_bytes: int
    n_files: int
    n_shards: int


def store_size(suffix: str, layouts: dict[str, ArrayLayout], packed_share: float = 1.0) -> StoreSize:
    """The size of a store; exact where nothing is compressed.

    Args:
        suffix: ".zarr" or ".h5".
        layouts: of every array, by its path.
        packed_share: what compression leaves of a chunk's bytes, for arrays with a codec.
    """
    in_shards = sum(shard_bytes(layout, packed_share) for layout in layouts.values())
    if suffix == ".zarr":
        n_shards = sum(layout.n_blocks for layout in layouts.values())
        return StoreSize(in_shards, in_shards, n_shards + len(layouts) + _n_groups(layouts), n_shards)
    in_file = sum(dataset_bytes(layout, packed_share) for layout in layouts.values())
    packed = any(layout.codec != "none" for layout in layouts.values())
    # A compressed file is put together of shards, which go when it is there.
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
    """Bytes of an array's rows: whole chunks of them where they are compressed."""
    if layout.codec == "none":
        return layout.n_bytes
    n_rows = math.ceil(layout.shape[0] / layout.chunk_rows) * layout.chunk_rows
    return math.ceil(n_rows * layout.row_bytes * packed_share)


def _n_groups(layouts: dict[str, ArrayLayout]) -> int:
    """Groups of the tree, its root among them."""
    groups = {""}
    for path in layouts:
        parts = path.split("/")
        groups |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return len(groups)
