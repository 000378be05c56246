"""Fusion (Algorithm 1, lines 15 to 17) as an embedding bag.

With all feature maps seen as one table of vectors, an augmented sample is the mean of L rows of it. Only
the vectors drawn are read, and a whole window of iterations is fused in one call.
"""

import torch


def fuse(table: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Pooled features of augmented samples.

    Args:
        table: (N · L, C), vector row · L + position; float16, bfloat16 or float32.
        vectors: (..., L) int32 or int64 indices into it.

    Returns:
        (..., C) float32: the mean of each sample's vectors, rounded to the table's dtype on the way.
    """
    bags = vectors.reshape(-1, vectors.shape[-1])
    means = torch.nn.functional.embedding_bag(bags, table, mode="mean")
    return means.float().reshape(*vectors.shape[:-1], table.shape[1])
