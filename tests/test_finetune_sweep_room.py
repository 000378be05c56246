"""Maps that have no room in memory are told before the first head of a sweep, and only those."""

from dataclasses import replace
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import head_id
from finetune.sweep.sweep import sweep
from store.errors import UserError
from store.reader import FeatureStore
from store.storage.location import locate

pytestmark = pytest.mark.usefixtures("in_tmp_path")

NO_ROOM = r"the maps of one iteration take|--residency (host|device): .* \(--memory\)"


def few(store: Path, n_maps: float, kind: str = "stream") -> FinetuneConfig:
    """Three steps, with memory for so many maps."""
    opened = FeatureStore(locate(str(store)))
    memory = n_maps * opened.map_bytes / opened.map_shape[0] / 2**30
    config = FinetuneConfig(str(store), "s", iterations=3, device="cpu", method="fsa+balanced-softmax")
    return replace(config, residency=kind, memory=memory)


def heads(base: FinetuneConfig, *grid: str, quiet) -> int:
    return len(sweep(SweepConfig(base, grid=grid, seeds=1), quiet, lambda rows: None).results)


@pytest.mark.parametrize("kind", ["stream", "host", "device"])
@pytest.mark.parametrize(
    "grid", ["method=crt,fsa+balanced-softmax", "mix_share=0.1,0.9", "mix_share=0.9,0.1"]
)
def test_it_is_told_before_heads_that_have_room(feature_store, quiet, kind, grid):
    """An iteration reads 64 maps at most, of 32 rows and their donors; with 0.1 it reads 26."""
    with pytest.raises(UserError, match=NO_ROOM):
        heads(few(feature_store, 50, kind), grid, quiet=quiet)
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("n_maps", "grid"),
    [
        (128.5, "mix_share=0.1,0.5"),
        (26.5, "mix_share=0.05,0.1"),
        (0.5, "method=crt,balanced-softmax"),
        (64.5, "method=crt,fsa"),  # 16 tail samples, and 3 donors for each
    ],
)
def test_what_has_room_to_the_last_map_is_not_refused(feature_store, quiet, n_maps, grid):
    assert heads(few(feature_store, n_maps), grid, quiet=quiet) == 2


def test_heads_that_are_done_need_none(feature_store, quiet):
    """A finished sweep is shown again with less memory; one that lacks heads without maps goes on."""
    grid = "method=crt,fsa+balanced-softmax"
    assert heads(few(feature_store, 200), grid, quiet=quiet) == 2
    less = replace(few(feature_store, 20), resume=True)
    assert heads(less, grid, quiet=quiet) == 2
    crt, fsa = (
        Path("s/done", f"{head_id(one.resolved(10))}.json")
        for one in SweepConfig(less, grid=(grid,), seeds=1).configurations()
    )
    crt.unlink()
    assert heads(less, grid, quiet=quiet) == 2
    fsa.unlink()
    with pytest.raises(UserError, match="the maps of one iteration take"):
        heads(less, grid, quiet=quiet)
