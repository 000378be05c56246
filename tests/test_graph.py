"""Recorded steps, with a recorder that only notes what it would record: the rest needs a GPU."""

import numpy as np
import pytest
import torch

from finetune.graph import RecordedSteps, record_on_gpu
from finetune.head import HeadOptions, Heads, padded
from finetune.losses import focal

CPU = torch.device("cpu")


def heads(device: torch.device = CPU) -> Heads:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 5, 7)).astype(np.float32)
    bias = np.zeros(5, np.float32)
    return Heads(
        [HeadOptions(one, bias, focal(1.0), 0.1 / (i + 1), 0.9, 0.01) for i, one in enumerate(weight)], device
    )


def windows(device: torch.device = CPU) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Of 4, 4, 3 and 4 iterations."""
    generator = torch.Generator().manual_seed(0)
    pooled = padded(torch.rand(15, 16, 7, generator=generator)).to(device)
    label = torch.randint(5, (15, 16), generator=generator).to(device)
    return [(pooled[a:b], label[a:b], a) for a, b in ((0, 4), (4, 8), (8, 11), (11, 15))]


def recording(made: Heads) -> list[int]:
    """Let heads be recorded; the number of recordings so far, and of replays, is kept in the list."""
    counts = [0, 0]

    def record(work):
        counts[0] += 1

        def replay():
            counts[1] += 1
            work()

        return replay

    made._recorded = RecordedSteps(made._steps, [made.weight, made.velocity], record)
    return counts


def test_replayed_steps_are_the_steps():
    plain, recorded = heads(), heads()
    counts = recording(recorded)
    for window in windows():
        torch.testing.assert_close(plain.take(*window), recorded.take(*window), rtol=0, atol=0)
    assert torch.equal(plain.weight, recorded.weight)
    assert torch.equal(plain.velocity, recorded.velocity)
    assert counts == [2, 4]  # two lengths, four windows


def test_the_windows_given_are_left_alone():
    recorded = heads()
    recording(recorded)
    pooled, label, start = windows()[0]
    before = pooled.clone(), label.clone()
    recorded.take(pooled, label, start)
    assert torch.equal(before[0], pooled)
    assert torch.equal(before[1], label)


@pytest.mark.cuda
def test_a_cuda_graph_takes_the_same_steps():
    device = torch.device("cuda")
    recorded, plain = heads(device), heads(device)
    plain._recorded = None
    assert recorded._recorded._record is record_on_gpu
    for window in windows(device):
        torch.testing.assert_close(plain.take(*window), recorded.take(*window), rtol=0, atol=0)
    assert torch.equal(plain.weight, recorded.weight)
