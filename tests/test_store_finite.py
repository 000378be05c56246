import ml_dtypes
import numpy as np
import pytest

from store.arrays import finite
from store.arrays.finite import first_not_finite

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_first_row_is_found_across_steps(dtype, value, monkeypatch):
    monkeypatch.setattr(finite, "BYTES_AT_ONCE", 3 * 12 * np.dtype(dtype).itemsize)  # three rows
    rows = np.zeros((11, 3, 4), dtype)
    for row in (0, 2, 3, 10):
        damaged = rows.copy()
        damaged[row:, 2, 3] = value
        assert first_not_finite(damaged) == row


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_smallest_numbers_are_finite(dtype):
    limits = ml_dtypes.finfo(dtype)
    values = [limits.max, limits.min, limits.smallest_subnormal, limits.smallest_normal, 0, -0.0]
    assert first_not_finite(np.array([values], dtype)) is None
    assert first_not_finite(np.empty((0, 3), dtype)) is None
