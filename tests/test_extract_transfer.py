"""Copies from a GPU that lag behind: nothing is mixed up, lost or kept from being checked."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made_views import assert_same

import extract.rows
from extract.config import ExtractConfig
from extract.dump import extract as extract_store
from extract.inference.transfer import AHEAD, PinnedCopies, kept_ahead, to_device, to_host
from store.errors import UserError

CPU = torch.device("cpu")


def numbered(log: list[str], n: int):
    for i in range(n):
        log.append(f"computed {i}")
        yield f"place {i}", {"rows": torch.full((2,), i)}


def test_batches_are_asked_for_before_earlier_ones_are_waited_for():
    log = []
    found = kept_ahead(
        numbered(log, 4),
        lambda tensors: log.append(f"begun {int(tensors['rows'][0])}") or tensors["rows"],
        lambda copy: log.append(f"ended {int(copy[0])}") or copy.tolist(),
        n_ahead=1,
    )
    assert list(found) == [(f"place {i}", [i, i]) for i in range(4)]
    asked = [f"{what} {i}" for i in range(4) for what in ("computed", "begun")]
    assert [line for line in log if not line.startswith("ended")] == asked
    assert log.index("begun 1") < log.index("ended 0") < log.index("computed 2")


def test_a_batch_that_is_used_is_held_by_its_user_alone():
    """What was begun of it is as large: maps in pieces, copies."""
    alive = []

    def begin(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        alive.append(weakref.ref(tensors["rows"]))
        return [tensors["rows"]]

    def batches() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for i in range(5):
            yield i, {"rows": torch.full((2,), i)}

    for i, rows in kept_ahead(batches(), begin, lambda begun: begun[0] + 0, n_ahead=1):
        assert rows.tolist() == [i, i]
        assert i == 4 or [row for row, reference in enumerate(alive) if reference() is not None] == [i + 1]


@pytest.mark.parametrize("n", range(AHEAD + 3))
def test_no_batch_is_lost_however_few_there_are(n):
    found = kept_ahead(numbered([], n), lambda tensors: tensors, lambda copy: int(copy["rows"][0]))
    assert list(found) == [(f"place {i}", i) for i in range(n)]


def test_on_a_cpu_nothing_is_copied_or_made_ahead():
    log = []
    batches = to_host(numbered(log, 3), CPU)
    place, tensors = next(batches)
    assert (place, log) == ("place 0", ["computed 0"])
    assert to_device(tensors["rows"], CPU) is tensors["rows"]


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for a GPU: rows arrive late, and what they were copied from is overwritten meanwhile."""
    copied = []

    def begin(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        copied.append(len(tensors["pooled"]))
        return {name: tensor.clone() for name, tensor in tensors.items()}

    monkeypatch.setattr(
        extract.rows, "to_host", lambda batches, device: kept_ahead(batches, begin, lambda copy: copy)
    )
    return copied


def extracted(ckpt: Path, path: Path, quiet, **options: object) -> Path:
    extract_store(ExtractConfig(str(ckpt), str(path), batch_size=16, device="cpu", **options), quiet)
    return path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_rows_that_arrive_late_make_the_same_store(phase1, tmp_path, quiet, dtype, request):
    options = {"dtype": dtype, "views": 2}
    prompt = extracted(phase1, tmp_path / "prompt.zarr", quiet, **options)
    copied = request.getfixturevalue("lagging")
    late = extracted(phase1, tmp_path / "late.zarr", quiet, **options)
    assert len(copied) > 2 * AHEAD
    assert_same(prompt, late)


@pytest.mark.parametrize(
    ("factor", "says"),
    [(1e9, r"train: feature maps exceed the range of float16; pass --dtype float32"), (np.nan, "not finite")],
)
def test_useless_features_of_the_last_batch_are_told_and_nothing_is_left(
    phase1, tmp_path, quiet, monkeypatch, lagging, factor, says
):
    maps_of = extract.rows.numbered_maps

    def spoiled(network, images, *arguments) -> Iterator[tuple[int, int, torch.Tensor]]:
        for start, view, maps in maps_of(network, images, *arguments):
            is_last = start + len(maps) == len(images)
            yield start, view, maps * factor if is_last else maps

    monkeypatch.setattr(extract.rows, "numbered_maps", spoiled)
    with pytest.raises(UserError, match=says):
        extracted(phase1, tmp_path / "feats.zarr", quiet)
    assert not (tmp_path / "feats.zarr").exists()


@pytest.mark.cuda
def test_copies_from_a_gpu_are_of_what_was_computed_before():
    device = torch.device("cuda", 0)
    square = torch.rand(2048, 2048, device=device)
    expected, rows = [], []

    def computed() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        current = square
        for i in range(20):
            current = (current @ square).tanh()  # takes so long that a hasty copy would differ
            expected.append(current.clone())
            yield i, {"rows": current, "bf16": current.bfloat16()[:, ::2]}
            current = current.clone()

    for i, host in to_host(computed(), device):
        assert i == len(rows)
        assert host["rows"].is_pinned()
        rows.append((host["rows"].clone(), host["bf16"].clone()))
    for (found, half), there in zip(rows, expected, strict=True):
        assert torch.equal(found, there.cpu())
        assert torch.equal(half, there.bfloat16()[:, ::2].cpu())


@pytest.mark.cuda
def test_memory_of_rows_on_their_way_is_not_taken_for_others():
    device = torch.device("cuda", 0)
    copies, begun = PinnedCopies(device), []
    for i in range(50):
        begun.append(copies.begin({"rows": torch.full((2**20,), i, device=device)}))  # and freed at once
    for i, copy in enumerate(begun):
        assert (copies.end(copy)["rows"] == i).all()


@pytest.mark.cuda
def test_images_on_their_way_to_a_gpu_may_be_overwritten():
    device, found = torch.device("cuda", 0), []
    busy = torch.rand(4096, 4096, device=device)
    images = torch.zeros(2**20, dtype=torch.uint8)
    for i in range(20):
        images.fill_(i)
        busy = (busy @ busy).tanh()
        found.append(to_device(images, device))
    assert [int(there.max()) for there in found] == [int(there.min()) for there in found] == list(range(20))


@pytest.mark.cuda
def test_a_store_from_a_gpu_is_what_prompt_copies_make(phase1, tmp_path, quiet, monkeypatch):
    def stored(name: str) -> Path:
        path = tmp_path / name
        extract_store(ExtractConfig(str(phase1), str(path), batch_size=16, device="cuda", views=2), quiet)
        return path

    late = stored("late.zarr")
    monkeypatch.setattr(
        extract.rows,
        "to_host",
        lambda batches, device: ((place, {k: v.cpu() for k, v in rows.items()}) for place, rows in batches),
    )
    assert_same(late, stored("prompt.zarr"))
