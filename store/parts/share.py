"""Which blocks each part of a store writes."""

import heapq

from store.layout import ArrayLayout
from store.schema import SPLITS
from store.writer import KNOWN

Block = tuple[str, int]  # group of the commit, and number


def owners(layouts: dict[str, ArrayLayout], count: int) -> dict[Block, int]:
    """The number of the part that writes each block, from 1 to `count`.

    The blocks with the most rows are dealt first, each to the part that has the fewest rows until then, so
    that parts take equally long as far as whole blocks allow. What is known beforehand is the first part's.
    """
    pooled = {split: layouts[f"{split}/pooled"] for split in SPLITS if f"{split}/pooled" in layouts}
    blocks = [(split, i) for split, layout in pooled.items() for i in range(layout.n_blocks)]
    blocks.sort(key=lambda block: -rows_of(block, layouts))  # stable: of equal ones, in order
    parts = [(0, number) for number in range(1, count + 1)]
    dealt = {(KNOWN, 0): 1}
    for block in blocks:
        n_rows, number = heapq.heappop(parts)
        dealt[block] = number
        heapq.heappush(parts, (n_rows + rows_of(block, layouts), number))
    return dealt


def rows_of(block: Block, layouts: dict[str, ArrayLayout]) -> int:
    """Rows that the network fills in a block."""
    split, index = block
    if split == KNOWN:
        return 0
    start, stop = layouts[f"{split}/pooled"].block(index)
    return stop - start
