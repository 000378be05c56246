"""The checkpoint that `extract` writes beside a store, of a network that another program trained.

It is a draft until the store is complete, so that a store that is replaced keeps its own until then.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from extract.adoption.adopt import adopt
from extract.adoption.resume import resumed
from extract.checkpoints.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from extract.checkpoints.restore import Restored
from extract.config import ExtractConfig
from extract.device import Compute
from store.drafts.lifecycle import draft_of
from store.errors import UserError
from store.storage.atomic import sync_folder
from store.storage.location import DRAFT, SUFFIXES
from store.storage.s3 import Bucket

Place = Path | Bucket


def checkpoint_beside(where: Place) -> Path:
    """feats.checkpoint.pt for feats.zarr, in the same folder; for a bucket, in the working directory."""
    name = where.url.rpartition("/")[2] if isinstance(where, Bucket) else Path(os.path.realpath(where)).name
    folder = Path.cwd() if isinstance(where, Bucket) else Path(os.path.realpath(where)).parent
    return folder / f"{name.removesuffix(where.suffix)}.checkpoint.pt"


def draft_checkpoint(where: Place) -> Path:
    """Where the checkpoint lies until the store is complete."""
    path = checkpoint_beside(where)
    return path.with_name(path.name + DRAFT)


@contextmanager
def adopted(
    config: ExtractConfig, where: Place, compute: Compute, progress: Progress
) -> Iterator[tuple[Restored, Path]]:
    """Phase I of another program's network, for as long as a store is extracted with it.

    When the `with` block ends, its checkpoint takes its place beside the store; if nothing is left to resume,
    it is removed.

    Yields:
        Phase I, its network on the device, and the file that holds its checkpoint meanwhile.

    Raises:
        UserError: weights, images or options cannot be used, or another checkpoint is in the way.
    """
    final, draft = checkpoint_beside(where), draft_checkpoint(where)
    held = next((file for file in (draft, final) if file.is_file()), None)
    if config.resume and held is not None:
        restored = resumed(config, held, progress)
    else:
        in_the_way = _check_replaceable(final, where, config.overwrite)
        restored, held = adopt(config, compute, progress), draft
        _check_same(in_the_way, restored.checkpoint, final, config.overwrite)
        save_checkpoint(restored.checkpoint, draft)
    try:
        yield restored, held
    except BaseException:
        if draft_of(where).begun() is None:
            draft.unlink(missing_ok=True)
        raise
    if draft.is_file():
        os.replace(draft, final)
        sync_folder(final.parent)


def _check_replaceable(final: Path, where: Place, overwrite: bool) -> Checkpoint | None:
    """The checkpoint that is there already, if there is one.

    Raises:
        UserError: something else is there, or, to be overwritten, the checkpoint of another store too.
    """
    if not os.path.lexists(final):
        return None
    try:
        found = load_checkpoint(final)
    except CheckpointError as error:
        raise UserError(
            f"{final}: is needed for the store's checkpoint; move it elsewhere ({error})"
        ) from error
    if not found.adopted:
        raise UserError(
            f"{final}: holds a checkpoint of `train` or `finetune`, where that of the store goes; name "
            "another --store"
        )
    others = [final.with_name(final.name.removesuffix(".checkpoint.pt") + suffix) for suffix in SUFFIXES]
    others = [other for other in others if other.exists() and other.suffix != where.suffix]
    if overwrite and others and not isinstance(where, Bucket):
        raise UserError(
            f"{final}: is the checkpoint of {others[0].name} too, which would lose it; name another --store"
        )
    return found


def _check_same(found: Checkpoint | None, new: Checkpoint, final: Path, overwrite: bool) -> None:
    """Raise UserError if a checkpoint would be replaced by another one, unasked."""
    if found is None or overwrite:
        return
    for name in ("network", "dataset", "transform", "class_names", "fingerprint", "config"):
        was, now = getattr(found, name), getattr(new, name)
        if was != now:
            raise UserError(
                f"{final}: is the checkpoint of an earlier store, with another {name.replace('_', ' ')}; "
                "pass --overwrite to replace it, or name another --store"
            )
