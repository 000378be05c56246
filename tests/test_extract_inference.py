"""A CPU takes a batch in pieces, two at a time: the same maps, in the same order."""

import importlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.progress import Progress
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torchvision.models.resnet import BasicBlock

from extract.config import ExtractConfig
from extract.device import MOST_MMAP_THRESHOLD, Compute
from extract.dump import extract
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.inference.passes import images_and_maps
from extract.inference.pieces import Begun, Pieces, _twin, images_at_once, in_pieces, n_pieces
from extract.networks.config import NetworkConfig
from extract.networks.parts import Network
from extract.networks.registry import build_network


class Counting(nn.Module):
    """A convolution that keeps the shapes of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.shapes = nn.Conv2d(3, 4, 3, stride=8), []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        return self.convolution(images)


class Meeting(nn.Module):
    """Gives back batches of several images once two threads are here, and keeps who they were."""

    met: ClassVar[list[tuple[int, int, int]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1:
            BOTH.wait(timeout=60)
            self.met.append((torch.get_num_threads(), id(self), self.weight.data_ptr()))
        return images


begin = Pieces.begin
BOTH = threading.Barrier(2)  # modules cannot hold it, since it cannot be copied
OWN = """
import threading

from torch import nn

THREADS = set()


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images):
        THREADS.add(threading.current_thread().name)
        return self.fc(self.convolution(images).mean((2, 3)))


def make():
    return Own()
"""
REGISTERED = """

from timm.models import register_model


@register_model
def own_of_tests(num_classes=2, pretrained=False, **options):
    return Own()
"""
QUIET = Progress(disable=True)
CPU = Compute(torch.device("cpu"), "fp32", 128, 0)


@given(n=st.integers(1, 5000), most=st.integers(1, 600))
def test_pieces_are_even_small_enough_and_no_smaller_than_they_must_be(n, most):
    pieces = n_pieces(n, most)
    sizes = [len(piece) for piece in torch.empty(n, 0).tensor_split(pieces)]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert pieces in (1, n) or pieces % 2 == 0
    assert n < 32 or pieces > 1
    assert pieces <= 2 or -(-n // (pieces // 2)) > most  # fewer would not do


@pytest.mark.parametrize("n", [1, 15, 37, 128])
def test_pieces_of_a_batch_give_its_maps_in_its_order(n, two_threads, monkeypatch):
    monkeypatch.setattr("extract.inference.pieces.images_at_once", lambda *of: 16)
    network, images = made_network(), numbers(n)
    whole = network.features.convolution(images).detach()
    with in_pieces(network, CPU) as side_by_side, in_pieces(network, CPU, nullcontext()) as one_at_a_time:
        features, in_turn = side_by_side.features, one_at_a_time.features
        assert torch.equal(features(images), whole)
        assert torch.equal(features(images[:7]), whole[:7])  # the last batch of a split is smaller
        assert torch.equal(in_turn(images), whole)
        assert not in_turn(images).requires_grad


def test_two_pieces_run_at_a_time_each_on_half_of_the_cores(two_threads):
    """Each waits for another one, so that one at a time would end with an error."""
    network = known(Network(Meeting(), made_network().classifier))
    maps = features_of(network, numbers(64))
    assert torch.equal(maps, numbers(64))
    assert not maps.requires_grad
    met = network.features.met
    assert {n_threads for n_threads, _, _ in met} == {1}
    assert len({module for _, module, _ in met}) == 2
    assert {weight for _, _, weight in met} == {network.features.weight.data_ptr()}


def test_who_watches_sees_every_piece_in_turn_and_no_look_at_single_images(two_threads, monkeypatch):
    monkeypatch.setattr("extract.inference.pieces.MOST_MMAP_THRESHOLD", 4 * 9 * 4 * 10)
    network, seen = made_network(), []

    @contextmanager
    def watching() -> Iterator[None]:
        hook = network.features.convolution.register_forward_hook(lambda of, args, maps: seen.append(maps))
        yield
        hook.remove()

    with torch.inference_mode():
        maps = features_of(network, numbers(37), watching())
    assert [len(piece) for piece in seen] == [10, 9, 9, 9]
    assert torch.equal(torch.cat(seen), maps)


@pytest.mark.parametrize("arch", ["resnet8", "resnet18", "mobilenet_v2", "timm:test_resnet"])
def test_code_that_is_known_can_run_in_threads(arch):
    with torch.random.fork_rng(devices=[]):
        assert build_network(NetworkConfig(arch), 2, 64).is_known
        assert not Network(nn.Identity(), nn.Linear(1, 1)).is_known  # of whoever else builds one


def test_a_network_of_a_users_own_takes_pieces_in_turn(two_threads, in_tmp_path):
    """Its code may keep anything anywhere."""
    Path("own_nets.py").write_text(OWN)
    with torch.random.fork_rng(devices=[]):
        network = build_network(NetworkConfig("own_nets:make"), 2, 24).eval()
    with torch.inference_mode():
        assert torch.equal(features_of(network, numbers(64)), network.features(numbers(64)))
    assert {threading.main_thread().name} == sys.modules["own_nets"].THREADS


def test_code_that_is_registered_with_timm_is_not_timms(in_tmp_path, monkeypatch):
    """Anyone's can be."""
    Path("own_entry.py").write_text(OWN + REGISTERED)
    monkeypatch.syspath_prepend(".")
    importlib.import_module("own_entry")
    with torch.random.fork_rng(devices=[]):
        assert not build_network(NetworkConfig("timm:own_of_tests"), 2).is_known


def test_threads_compute_in_the_precision_asked_for(two_threads):
    with in_pieces(made_network(), replace(CPU, precision="bf16")) as pieces:
        assert pieces.features(numbers(64)).dtype == torch.bfloat16


def test_an_extraction_runs_two_pieces_at_a_time(small_ckpt, in_tmp_path, two_threads, monkeypatch):
    monkeypatch.setattr("extract.inference.pieces.images_at_once", lambda *of: 3)
    n_images: Counter[str] = Counter()

    def note(module: nn.Module, args: tuple[torch.Tensor, ...], output: object) -> None:
        if isinstance(module, BasicBlock):
            n_images[threading.current_thread().name.rstrip("01")] += len(args[0])

    handle = register_module_forward_hook(note)
    try:
        extract(ExtractConfig(str(small_ckpt), "s.zarr", batch_size=8, device="cpu"), QUIET)
    finally:
        handle.remove()
    assert n_images["features_"] > n_images["MainThread"]  # which proves the network, and takes what is left


@pytest.mark.parametrize("watched", [None, nullcontext()])
def test_images_stay_beside_their_maps_while_the_next_batch_is_begun(watched, tmp_path, two_threads):
    paths = [tmp_path / f"{row}.png" for row in range(90)]
    for row, path in enumerate(paths):
        Image.new("RGB", (72, 72), (row, 255 - row, 2 * row)).save(path)
    split = ImageSet(paths, np.zeros(90, np.int64), np.arange(90))
    network, begun = made_network(), []

    def begins(pieces: Pieces, images: torch.Tensor) -> Begun:
        begun.append(len(images))
        return begin(pieces, images)

    with mock.patch.object(Pieces, "begin", begins), torch.inference_mode():
        passes = images_and_maps(network, split, Transform(72), replace(CPU, batch_size=40), watched)
        for number, (images, maps) in enumerate(passes, 1):
            assert torch.equal(network.features.convolution(images), maps)
            assert len(begun) == number + (watched is None and number < 3)
    assert number == 3


def test_errors_of_a_network_are_raised_and_threads_end(two_threads):
    network, n_threads = made_network(), threading.active_count()
    with in_pieces(network, CPU) as pieces:
        whole = pieces.features(numbers(64))
        with pytest.raises(RuntimeError, match="channels"):
            pieces.features(numbers(64)[:, :2])
        assert torch.equal(pieces.features(numbers(64)), whole)
    with pytest.raises(RuntimeError, match="channels"):
        features_of(network, numbers(64)[:, :2])  # which leaves the block
    with (
        mock.patch("extract.inference.pieces._twin", wraps=_twin) as twins,
        in_pieces(network, CPU) as pieces,
    ):
        with pytest.raises(RuntimeError, match="channels"):
            pieces.features(numbers(64)[:, :2])  # the first look
        assert torch.equal(pieces.features(numbers(64)), whole)
    assert twins.call_count == 1  # one network for each thread, whatever failed before
    assert threading.active_count() == n_threads
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("side", [64, 512])
def test_no_tensor_between_layers_is_larger_than_the_c_library_keeps(side):
    """The largest is that of the convolution: 4 channels of an eighth of the side, in float32."""
    network, images = made_network(), torch.zeros(3, 3, side, side)
    of_one = 4 * (side // 8) ** 2 * 4
    assert images_at_once(network, images, CPU) == MOST_MMAP_THRESHOLD // of_one
    assert network.features.shapes == [(1, 3, side, side)]
    assert not network.features.convolution._forward_hooks  # nothing stays behind


def test_one_image_is_the_least():
    network = made_network()
    with mock.patch("extract.inference.pieces.MOST_MMAP_THRESHOLD", 100):
        assert images_at_once(network, torch.zeros(3, 3, 64, 64), CPU) == 1


def test_a_gpu_takes_a_batch_whole(two_threads):
    network = made_network()
    features_of(network, numbers(64), compute=replace(CPU, device=torch.device("cuda")))
    assert network.features.shapes == [(64, 3, 24, 24)]


def features_of(
    network: Network,
    images: torch.Tensor,
    watched: AbstractContextManager | None = None,
    compute: Compute = CPU,
) -> torch.Tensor:
    with in_pieces(network, compute, watched) as pieces:
        return pieces.features(images)


def numbers(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def made_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        return known(Network(Counting(), nn.Linear(4, 2)))


def known(network: Network) -> Network:
    """As if its code were ours."""
    network.is_known = True
    return network.eval()
