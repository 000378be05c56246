"""Worker processes that read images: little shared memory, none, deaths and hangs; nothing waits forever."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_workers import COMPUTE, SIZE, N, read, with_bad_image

import extract.images.parts
import extract.images.processes
import extract.images.workers
from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.gate import Gate
from extract.images.parts import ImageFiles, Part, prepare
from extract.images.shared_memory import SHARED
from extract.images.transforms import Transform
from extract.images.workers import keep_workers
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("two_workers")


def with_shared_memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    sizes = SimpleNamespace(f_bavail=n_bytes, f_blocks=n_bytes, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: sizes)


def test_little_shared_memory_changes_no_batch(ten_images, monkeypatch, caplog):
    """Containers have 64 MiB by default, less than the prefetched images of a batch of 128 at 224 pixels."""
    expected = read(ten_images, Compute(COMPUTE.device, "fp32", COMPUTE.batch_size, workers=0))
    sizes, part = [], ImageFiles.part
    monkeypatch.setattr(ImageFiles, "part", lambda files, p: sizes.append(len(p)) or part(files, p))
    with_shared_memory(monkeypatch, 2 * 6 * 3 * SIZE**2)  # half of it, for six parts
    found = read(ten_images)
    assert set(sizes) == {1}
    assert len(found) == len(expected) == 6
    for (images, label), (images_then, label_then) in zip(found, expected, strict=True):
        assert torch.equal(images, images_then)
        assert torch.equal(label, label_then)
    assert "hand over batches in parts" in caplog.text


def test_as_much_as_is_needed_is_left_as_it_is(ten_images, monkeypatch, caplog):
    with_shared_memory(monkeypatch, 2 * 6 * 2 * 3 * SIZE**2)
    read(ten_images)
    assert not caplog.text


def test_no_shared_memory_is_told_with_what_to_do(ten_images, monkeypatch):
    with_shared_memory(monkeypatch, 2 * 6 * 3 * SIZE**2 - 1)
    with pytest.raises(UserError, match=rf"{SHARED}: has 0\.2 MiB free, too little .* --workers 0"):
        read(ten_images)
    read(ten_images, Compute(COMPUTE.device, "fp32", COMPUTE.batch_size, workers=0))


@pytest.mark.parametrize(("room", "what"), [(0, "what workers share"), (1, ".* MiB of images")])
def test_shared_memory_that_others_took_meanwhile_is_told(ten_images, room, what, monkeypatch):
    share = torch.Tensor.share_memory_

    def little_room(self: torch.Tensor) -> torch.Tensor:
        if self.nbytes <= room:
            return share(self)
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", little_room)
    with pytest.raises(UserError, match=rf"{SHARED}: has no room for {what} .*--workers 0"):
        read(ten_images)


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_is_told(ten_images, number, monkeypatch, capfd):
    parent = os.getpid()

    def dying(*_: object) -> torch.Tensor:
        assert os.getpid() != parent
        os.kill(os.getpid(), number)
        return torch.zeros(())

    monkeypatch.setattr(extract.images.parts, "image_views", dying)
    with pytest.raises(UserError, match=r"a worker process that reads images died, .* --workers 0"):
        read(ten_images)
    assert capfd.readouterr().err == ""


def test_workers_that_give_nothing_any_more_are_told(ten_images, monkeypatch):
    monkeypatch.setattr(extract.images.parts, "image_views", lambda *_: signal.pause())
    monkeypatch.setattr(extract.images.workers, "LONGEST", 1)
    with pytest.raises(
        UserError, match="no image came from the worker processes for 0 minutes; check whether"
    ):
        read(ten_images)


def test_workers_leave_ctrl_c_to_the_process_that_was_started(ten_images, monkeypatch):
    original = extract.images.parts.image_views

    def pressed(*arguments: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)  # to all of them, as a terminal does
        return original(*arguments)

    monkeypatch.setattr(extract.images.parts, "image_views", pressed)
    assert len(read(ten_images)) == 6


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError("by peer"), FileNotFoundError("socket")])
def test_a_worker_that_died_while_its_images_were_fetched_is_told(error):
    def lost() -> Iterator[torch.Tensor]:
        raise error
        yield

    with pytest.raises(UserError, match="a worker process that reads images died"):
        extract.images.workers._received(lost())
    error.args = ("Caught it in DataLoader worker process 0.\nOriginal Traceback …",)  # a fault of ours
    with pytest.raises(type(error), match="Caught it"):
        extract.images.workers._received(lost())


@pytest.fixture
def by_whom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[int]]:
    """The processes that prepared parts since it was last asked, one for each part."""
    told = tmp_path / "told"

    def noting(part: Part, gate: Gate | None = None) -> torch.Tensor | str:
        with told.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return prepare(part, gate)

    def since() -> list[int]:
        lines = told.read_text().split()
        told.write_text("")
        return list(map(int, lines))

    monkeypatch.setattr(extract.images.processes, "prepare", noting)
    monkeypatch.setattr(extract.images.workers, "prepare", noting)
    return since


def test_kept_workers_read_every_epoch_and_split_and_then_end(ten_images, by_whom):
    expected = read(ten_images, replace(COMPUTE, workers=0))
    assert set(by_whom()) == {os.getpid()}
    with keep_workers():
        for _ in range(3):
            for (images, label), (images_then, label_then) in zip(read(ten_images), expected, strict=True):
                assert torch.equal(images, images_then)
                assert torch.equal(label, label_then)
        processes = set(by_whom())
        assert len(processes) == 2
        assert processes <= {child.pid for child in active_children()}
    assert not processes & {child.pid for child in active_children()}
    read(ten_images)
    assert len(set(by_whom())) == 4  # two for each of both


def test_workers_whose_parts_were_not_all_taken_are_not_kept(ten_images, by_whom):
    """What they prepared is not what the next asks for."""
    (expected, _), *_ = evaluation_batches(ten_images, Transform(SIZE), replace(COMPUTE, workers=0))
    by_whom()
    turned = ten_images.take(np.arange(N)[::-1])
    with keep_workers():
        next(evaluation_batches(turned, Transform(SIZE), COMPUTE))
        stopped = set(by_whom())
        images, _ = next(evaluation_batches(ten_images, Transform(SIZE), COMPUTE))
        assert torch.equal(images, expected)
        assert not stopped & set(by_whom())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_which_one_died_while_they_waited_are_replaced(ten_images, by_whom, number):
    with keep_workers():
        read(ten_images)
        first = set(by_whom())
        one = next(process for process in active_children() if process.pid in first)
        os.kill(one.pid, number)
        one.join()
        assert len(read(ten_images)) == 6
        assert not first & set(by_whom())
        assert not first & {process.pid for process in active_children()}


def test_a_bad_image_ends_kept_workers_too(ten_images, tmp_path, by_whom):
    with keep_workers():
        with pytest.raises(UserError, match=f"{tmp_path / 'bad.png'}: not a readable image"):
            read(with_bad_image(ten_images, tmp_path / "bad.png", at=9))
        by_whom()
        assert len(read(ten_images)) == 6
