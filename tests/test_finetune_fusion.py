import numpy as np
import pytest
import torch

from finetune.mixing.fusion import fuse


def test_fused_sample_by_hand():
    # Two maps of two positions and two channels; rows of the table: (0,0) (0,1) (1,0) (1,1).
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    vectors = torch.tensor([[1, 2], [1, 1]])  # one vector of each map; the same vector twice
    fused = fuse(table, vectors)
    assert fused.tolist() == [[3.0, 30.0], [2.0, 20.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fusion_is_the_mean_of_the_vectors_drawn(dtype):
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(6 * 9, 5, generator=generator).to(dtype)
    vectors = torch.randint(len(table), (4, 7, 9), generator=generator, dtype=torch.int32)
    fused = fuse(table, vectors)
    assert fused.shape == (4, 7, 5)
    assert fused.dtype == torch.float32
    expected = np.empty((4, 7, 5))
    for i, j in np.ndindex(4, 7):
        expected[i, j] = np.mean([table[v].double().numpy() for v in vectors[i, j].tolist()], axis=0)
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    np.testing.assert_allclose(fused.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("n_vectors", [16, 49])
def test_a_mean_within_float16_comes_of_a_sum_beyond_it(n_vectors):
    generator = torch.Generator().manual_seed(0)
    table = (60_000 * torch.rand(100, 8, generator=generator)).half()
    vectors = torch.randint(100, (5, n_vectors), generator=generator)
    expected = table[vectors].double().mean(dim=1)
    torch.testing.assert_close(fuse(table, vectors).double(), expected, rtol=2**-11, atol=0)


def test_a_mean_is_rounded_once():
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(100, 256, generator=generator).half()
    vectors = torch.randint(100, (64, 49), generator=generator)
    expected = table[vectors].double().mean(dim=1)
    torch.testing.assert_close(fuse(table, vectors).double(), expected, rtol=1.01 * 2**-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_vectors", [2, 16, 25, 49, 196])
def test_the_divisor_is_the_number_of_vectors_to_the_bit(dtype, n_vectors):
    """Equal to numpy's quotient: a factor of 1/49 would be an ulp off in places."""
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(500, 64, generator=generator).to(dtype)
    vectors = torch.randint(len(table), (32, n_vectors), generator=generator)
    weights = torch.full(vectors.shape, 2.0 ** -(n_vectors - 1).bit_length(), dtype=dtype)
    sums = torch.nn.functional.embedding_bag(vectors, table, mode="sum", per_sample_weights=weights)
    divisor = np.float32(n_vectors * weights[0, 0].item())
    expected = sums.float().numpy() / divisor
    assert fuse(table, vectors).numpy().tobytes() == expected.tobytes()
    if n_vectors == 49:
        assert (sums.float().numpy() * (1 / divisor) != expected).any()


def test_nothing_is_divided_by_a_number_of_python():
    """A GPU would multiply by its reciprocal."""
    divisors = []

    class Noting(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (torch.div, torch.Tensor.div, torch.Tensor.__truediv__, torch.true_divide):
                divisors.append(args[1])
            return super().__torch_function__(function, types, args, kwargs or {})

    fuse(torch.ones(10, 4).as_subclass(Noting), torch.zeros(2, 3, dtype=torch.int64))
    assert len(divisors) == 1
    assert isinstance(divisors[0], torch.Tensor)
    assert divisors[0].shape == ()
