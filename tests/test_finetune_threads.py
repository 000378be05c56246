"""Threads of Phase II: each computes on its own, whatever torch does elsewhere in the process."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from extract.device import set_threads_here
from finetune.heads.threads import single_threaded


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_a_new_thread_keeps_the_number_that_it_is_given_and_gives_it_to_no_other(four_threads):
    def here(n: int) -> int:
        set_threads_here(n)
        torch.ones(64, 4096).sum()
        return torch.get_num_threads()

    for n in (1, 3):
        with ThreadPoolExecutor(1) as new_thread:
            assert new_thread.submit(here, n).result() == n
    with ThreadPoolExecutor(1) as new_thread:
        assert new_thread.submit(torch.get_num_threads).result() == 4
    assert torch.get_num_threads() == 4


def test_every_thread_of_a_run_is_single_threaded_and_rounds_as_the_others_do(four_threads):
    numbers = torch.randn(64, 2048, generator=torch.Generator().manual_seed(0))
    both, found = threading.Barrier(2), []

    def add_up(item: int) -> None:
        both.wait(timeout=60)
        found.append((threading.current_thread().name, torch.get_num_threads(), numbers.sum().item()))

    set_threads_here(2)  # so that a run has two threads
    with single_threaded() as threads:
        threads.each(add_up, range(2))
    names, n_threads, sums = (set(values) for values in zip(*found, strict=True))
    assert len(names) == 2
    assert n_threads == {1}
    assert len(sums) == 1
    assert torch.get_num_threads() == 2
