"""Fusion (Algorithm 1, lines 15 to 17) as an embedding bag.

With all feature maps seen as one table of vectors, an augmented sample is the mean of L of its rows. Only
drawn vectors are read, and a whole window of iterations is fused in one call.
"""

import math
from collections.abc import Callable

import torch

Empty = Callable[[torch.Size], torch.Tensor]


def fuse(table: torch.Tensor, vectors: torch.Tensor, empty: Empty | None = None) -> torch.Tensor:
    """Pooled features of augmented samples.

    Args:
        table: (N · L, C) float16, bfloat16 or float32; row · L + position is the index of a vector.
        vectors: (..., L) int32 or int64 indices into the table.
        empty: gives memory of a shape for the result, float32; None for new memory.

    Returns:
        (..., C) float32: the mean of each sample's vectors. Their sum, in float32 and in order, is rounded
        once to the table's dtype, and then divided. A CPU and a GPU agree to the bit but for sums halfway
        between two numbers of bfloat16: most CPUs round them away from zero (FBGEMM), a GPU to the even one.
    """
    n_vectors = vectors.shape[-1]
    bags = vectors.reshape(-1, n_vectors)
    # The sum of a mean may overflow float16. A power of two as weight is exact and keeps it in range.
    scale = 2.0 ** -math.ceil(math.log2(n_vectors))
    weights = torch.full(bags.shape, scale, dtype=table.dtype, device=table.device)
    sums = torch.nn.functional.embedding_bag(bags, table, mode="sum", per_sample_weights=weights)
    # A tensor: on a GPU, torch multiplies by the reciprocal of a Python number, which rounds differently.
    divisor = torch.full((), n_vectors * scale, dtype=torch.float32, device=table.device)
    out = None if empty is None else empty(sums.shape)
    return torch.div(sums.float(), divisor, out=out).reshape(*vectors.shape[:-1], table.shape[1])
