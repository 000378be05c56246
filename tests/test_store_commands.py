"""`store info` and `store verify` on the command line."""

import json
import shutil
from pathlib import Path

import pytest
from bad_input import refuse, run, succeed
from made_store import make_store

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_info_counts_every_class(small_store: Path) -> None:
    text = succeed("store", "info", small_store).stdout
    assert "train/feature_map    float16  18 × 4 × 4 × 16" in text
    assert "3 classes: ape 8, bee 6, cat 4" in text
    content = json.loads(succeed("store", "info", small_store, "--json").stdout)
    assert content["classes"][1] == {"class_name": "bee", "train": 6, "test": 6}
    assert content["arrays"]["train/pooled"] == {"shape": [18, 16], "dtype": "float32", "bytes": 18 * 16 * 4}
    assert content["bytes"] == sum(f.stat().st_size for f in small_store.rglob("*") if f.is_file())


@pytest.mark.parametrize("store", ["feats.zarr", "feats.h5"])
def test_info_of_a_store_that_something_else_made(store: str) -> None:
    make_store(Path(store))
    assert "does not record how it was made" in succeed("store", "info", store).stdout


def test_verify_says_sound_and_not_sound(small_store: Path) -> None:
    shutil.copytree(small_store, "feats.zarr")
    assert succeed("store", "verify", "feats.zarr").stdout == "feats.zarr: sound\n"
    shard = Path("feats.zarr/train/pooled/c/0/0")
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    result = run("store", "verify", "feats.zarr")
    fault = "train/pooled: rows 0 to 17 do not match their checksum"
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == f"{fault}\nfeats.zarr: not sound, 1 found\n"
    result = run("store", "verify", "feats.zarr", "--json")
    assert (result.exit_code, json.loads(result.stdout)["faults"]) == (1, [fault])


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_is_no_store(command: str, tmp_path: Path) -> None:
    refuse("store", command, "none.zarr", says=["none.zarr: no such store"])
    Path("notes.h5").write_text("no store")
    refuse("store", command, "notes.h5", says=["notes.h5: not an HDF5 store"])
    (tmp_path / "empty.zarr").mkdir()
    refuse("store", command, "empty.zarr", says=["empty.zarr: not a zarr v3 store"])


@pytest.mark.parametrize("command", ["info", "verify", "convert", "finetune", "sweep"])
@pytest.mark.parametrize("begun_by", ["extract", "store convert"])
@pytest.mark.usefixtures("several_blocks")
def test_a_store_that_was_begun_is_not_called_missing(
    command: str, begun_by: str, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reader says that it is not finished, where its draft is, and which command resumes it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    phase1 = small_store.parent / "phase1" / "checkpoint.pt"
    begin = {
        "extract": ["--ckpt", phase1, "--store", "f.zarr", "--device", "cpu"],
        "store convert": [small_store, "f.zarr"],
    }[begun_by]
    with monkeypatch.context() as patch:
        patch.setattr("store.writer.StoreWriter.finish", interrupt)
        assert run(*begun_by.split(), *begin).exit_code == 130
    reads = {"convert": ["f.zarr", "t.h5"], "finetune": ["--store", "f.zarr"], "sweep": ["--store", "f.zarr"]}
    group = ["store"] * (command in ("info", "verify", "convert"))
    says = ["f.zarr: is not finished", "f.zarr.unfinished", "--resume"]
    says += [] if command == "convert" else [f"repeat the `{begun_by}` command that started it"]
    refuse(*group, command, *reads.get(command, ["f.zarr"]), says=says)
