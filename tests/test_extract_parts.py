"""Extractions in parts: `--part`, `store join`, and the ranks of torchrun, which give one process's store."""

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from bad_input import refuse, run, succeed
from dying import die_at_commit
from faults import ended, forked
from made_store import contents

import tailcache
from extract.torchrun.meeting import Meeting
from store.drafts.lifecycle import draft_folder
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
STORE = Path("s.zarr")


def command(ckpt: Path, *options: object) -> list[object]:
    return ["extract", "--ckpt", ckpt, "--store", STORE, "--batch-size", 4, "--device", "cpu", *options]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give small stores several blocks, and stop the clock of their provenance."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    monkeypatch.setattr("extract.provenance.now", lambda: 1_700_000_000)


@pytest.fixture
def whole(small_ckpt: Path, in_tmp_path: None, small_blocks: None) -> dict[str, bytes]:
    """The bytes of one process's store, which is removed again: its path is in its provenance."""
    succeed(*command(small_ckpt))
    found = contents(STORE)
    shutil.rmtree(STORE)
    return found


def test_parts_in_any_order_are_one_processs_store(whole, small_ckpt, monkeypatch):
    for number in (3, 1):
        said = succeed(*command(small_ckpt, "--part", f"{number}/3"))
        assert f"s.zarr: part {number}/3 is written; when all are, run: " in said.stdout
        assert said.stdout.rstrip().endswith(" store join s.zarr")
        assert f"this process writes part {number}/3: " in said.stderr
    refuse("store", "info", STORE, says=["once its 3 parts are written, run `store join s.zarr`"])
    refuse("finetune", "--store", STORE, says=["once its 3 parts are written"])
    refuse("store", "join", STORE, says=["are missing, of part 2/3; run `extract` with --part"])
    for name, value in {"ID": 8, "MIN": 4, "MAX": 12, "COUNT": 3, "STEP": 4}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert "writes part 2/3" in succeed(*command(small_ckpt, "--part", "slurm")).stderr
    assert "s.zarr: complete, of 3 parts" in succeed("store", "join", STORE).stdout
    assert contents(STORE) == whole
    assert [path.name for path in Path().iterdir()] == ["s.zarr"]
    assert "complete already" in succeed("store", "join", STORE).stdout
    succeed("store", "verify", STORE, "--sample", 3, "--ckpt", small_ckpt)


def test_parts_of_views_and_layers(small_blocks, small_ckpt):
    options = ["--views", 3, "--dtype", "int8", "--codec", "lz4", "--layers", "layer2"]
    succeed(*command(small_ckpt, *options))
    found = contents(STORE)
    shutil.rmtree(STORE)
    for number in (1, 2):
        succeed(*command(small_ckpt, *options, "--part", f"{number}/2"))
    succeed("store", "join", STORE)
    assert contents(STORE) == found


def test_a_killed_part_computes_only_what_is_missing(whole, small_ckpt, monkeypatch):
    def dies() -> None:
        die_at_commit(2)
        run(*command(small_ckpt, "--part", "2/2"))

    assert ended(*forked(dies)) == -signal.SIGKILL
    succeed(*command(small_ckpt, "--part", "1/2"))
    refuse(*command(small_ckpt, "--part", "2/2"), says=["part 2/2 was begun already; pass --resume"])
    succeed(*command(small_ckpt, "--part", "2/2", "--resume"))
    computed = []
    monkeypatch.setattr("extract.dump.computed_rows", lambda *_: computed.append(1) or iter(()))
    succeed(*command(small_ckpt, "--part", "2/2", "--resume"))
    assert computed == []  # all of it is there
    succeed("store", "join", STORE)
    assert contents(STORE) == whole


def test_parts_of_other_options_are_refused(small_blocks, small_ckpt):
    succeed(*command(small_ckpt, "--part", "1/3"))
    for options, says in {
        ("--dtype", "float32"): "another dtype (float16) than now (float32); use the same, or delete s.zarr",
        ("--views", "2"): "another number of views (1) than now (2)",
        ("--layers", "layer1"): "another",
        ("--precision", "bf16"): "another precision (fp32) than now (bf16)",
    }.items():
        refuse(*command(small_ckpt, "--part", "2/3", *options), says=[says])
    refuse(*command(small_ckpt, "--part", "2/4"), says=["was started in 3 parts, and not in 4"])
    for options in ([], ["--resume"]):
        refuse(*command(small_ckpt, *options), says=["was started in 3 parts"])


@pytest.mark.parametrize("text", ["3/2", "0/2", "a/b", "slurm"])
def test_no_such_part_is_refused(small_ckpt, text):
    refuse(*command(small_ckpt, "--part", text), says=[f"--part {text}: "])


def test_what_does_not_go_with_parts(small_ckpt, small_root):
    refuse(*command(small_ckpt, "--part", "1/2", "--overwrite"), says=["does not go with --overwrite"])
    hdf5 = ["extract", "--ckpt", small_ckpt, "--store", "s.h5", "--part", "1/2"]
    refuse(*hdf5, says=["s.h5: an HDF5 file has one writer", "make HDF5 of it with `store convert`"])
    fit = ["--classifier", "fit", "--weights", "DEFAULT", "--arch", "resnet18", "--root", small_root]
    refuse("extract", *fit, "--part", "1/2", says=["cannot be extracted in parts", "in one process"])
    refuse("store", "join", "none.zarr", says=["none.zarr: no such store"])


def test_parts_from_python(whole, small_ckpt):
    options = {"store": STORE, "batch_size": 4, "device": "cpu"}
    for number in (1, 2):
        assert tailcache.extract(small_ckpt, part=f"{number}/2", **options) is None
    with pytest.raises(UserError, match="no option parts; did you mean part"):
        tailcache.extract(small_ckpt, parts="1/2", **options)


def as_rank(rank: int, world: int, port: int, *arguments: object) -> tuple[int, int]:
    """A process as torchrun starts it; forked, since importing torch takes longest."""

    def start() -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        result = run(*arguments)
        Path(f"said{rank}").write_text(result.output)
        os._exit(result.exit_code)

    return forked(start)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_ranks_give_one_processs_store(whole, small_ckpt):
    world = 3
    port = free_port()
    children = [as_rank(rank, world, port, *command(small_ckpt)) for rank in reversed(range(world))]
    codes = [ended(*child) for child in children]
    said = [Path(f"said{rank}").read_text() for rank in range(world)]
    assert codes == [0] * world, "\n".join(said)
    assert contents(STORE) == whole
    assert sum("s.zarr/train: feature maps" in text for text in said) == 1  # by who completed it
    port = free_port()
    again = [as_rank(rank, world, port, *command(small_ckpt, "--resume")) for rank in range(world)]
    assert [ended(*child) for child in again] == [0] * world
    assert contents(STORE) == whole


class Listening:
    """A key-value store of torch's, in which every other rank has said what it will be asked for."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def set(self, key: str, value: str) -> None: ...

    def wait(self, keys: list[str], timeout: object) -> None:
        self.heard += keys


@pytest.mark.parametrize("is_finished", [False, True])
def test_the_first_rank_ends_after_all_others_have_begun(is_finished, whole, small_ckpt, monkeypatch):
    """It may host what the others begin by: gone too early, it ends them."""
    if is_finished:
        succeed(*command(small_ckpt))
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    others = Listening()
    monkeypatch.setattr("extract.parts.ranks.meet", lambda _: Meeting(others, 0, 3))
    succeed(*command(small_ckpt, *(["--resume"] if is_finished else [])))
    assert others.heard == ["extract/2", "extract/3"]


def test_ranks_overwrite_and_resume(whole, small_ckpt):
    succeed(*command(small_ckpt, "--dtype", "float32"))
    port = free_port()
    children = [as_rank(rank, 2, port, *command(small_ckpt, "--overwrite")) for rank in range(2)]
    assert [ended(*child) for child in children] == [0, 0]
    assert contents(STORE) == whole | {"zarr.json": contents(STORE)["zarr.json"]} | checks(STORE)
    port = free_port()
    children = [as_rank(rank, 2, port, *command(small_ckpt)) for rank in range(2)]
    assert ended(*children[0]) == 2  # it exists; torchrun would end the other
    os.kill(children[1][0], signal.SIGKILL)
    ended(*children[1])
    assert "s.zarr: already exists" in Path("said0").read_text()


def checks(path: Path) -> dict[str, bytes]:
    """Checksums of the attributes, which record whether --overwrite was passed."""
    return {name: value for name, value in contents(path).items() if name.startswith("checksum/metadata/")}


def test_a_killed_rank_is_resumed(whole, small_ckpt):
    """torchrun ends the others."""
    port = free_port()

    def dies() -> None:
        die_at_commit(2)
        os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        run(*command(small_ckpt))

    first, second = as_rank(0, 2, port, *command(small_ckpt)), forked(dies)
    assert (ended(*first), ended(*second)) == (0, -signal.SIGKILL)
    assert not STORE.exists()
    assert draft_folder(STORE).exists()
    port = free_port()
    children = [as_rank(rank, 2, port, *command(small_ckpt, "--resume")) for rank in range(2)]
    assert [ended(*child) for child in children] == [0, 0]
    found = contents(STORE)
    assert found == whole
