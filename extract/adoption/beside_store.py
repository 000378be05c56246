"""The checkpoint that `extract` writes beside a store, of a network that another program trained.

It is a draft until the store is complete, so that a store that is replaced keeps its own until then.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from extract.adoption.adopt import adopt
from extract.adoption.resume import differing, resumed
from extract.checkpoints.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from extract.checkpoints.restore import Restored
from extract.config import ExtractConfig
from extract.device import Compute
from store.drafts.lifecycle import draft_of
from store.errors import UserError
from store.storage.atomic import is_leftover, sync_folder
from store.storage.location import DRAFT, SUFFIXES
from store.storage.lock import sole_writer
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
    with sole_writer(final, "checkpoint of a store"):  # before anything is written, until it has its place
        _check_no_folder(draft)
        _check_sole_store(final, where, config.classifier == "fit")
        restored, held = _made_or_resumed(config, where, compute, progress)
        try:
            yield restored, held
        except BaseException:
            if draft_of(where).begun() is None:
                draft.unlink(missing_ok=True)
            raise
        if draft.is_file():
            _publish(draft, final)


def _made_or_resumed(
    config: ExtractConfig, where: Place, compute: Compute, progress: Progress
) -> tuple[Restored, Path]:
    """Phase I, and the file of its checkpoint."""
    final, draft = checkpoint_beside(where), draft_checkpoint(where)
    held = next((file for file in (draft, final) if file.is_file()), None)
    if config.resume and held is not None:
        return resumed(config, held, progress), held
    found = _check_replaceable(final, where, config.overwrite)
    _check_same_options(found, config, final)
    restored = adopt(config, compute, progress)
    _check_same(found, restored.checkpoint, config, final)
    save_checkpoint(restored.checkpoint, draft)
    return restored, draft


def _check_no_folder(draft: Path) -> None:
    """Raise UserError for a folder where the draft of the checkpoint goes, before images are read."""
    if draft.is_dir():
        raise UserError(
            f"{draft}: is a folder, where the store's checkpoint lies until the store is complete; move it "
            "elsewhere"
        )


def _check_sole_store(final: Path, where: Place, fitted: bool) -> None:
    """Raise UserError if the checkpoint is also that of a store in the other container, and would change.

    A fitted classifier depends on the store's own features; a draft needs its checkpoint as it is.
    """
    if isinstance(where, Bucket):
        return
    for other in _in_other_containers(final, where):
        begun = draft_of(other).begun() is not None
        if begun or (fitted and other.exists()):
            kind = "the unfinished " if begun else ""
            raise UserError(
                f"{final}: is the checkpoint of {kind}{other.name} too, which would lose it; name another "
                "--store"
            )


def _in_other_containers(final: Path, where: Place) -> list[Path]:
    """The stores that would have the same checkpoint."""
    name = final.name.removesuffix(".checkpoint.pt")
    return [final.with_name(name + suffix) for suffix in SUFFIXES if suffix != where.suffix]


def _publish(draft: Path, final: Path) -> None:
    """Give a checkpoint its name, and remove what killed writers left of it."""
    os.replace(draft, final)
    sync_folder(final.parent)
    for entry in final.parent.iterdir():
        if is_leftover(entry.name) and entry.name.startswith(f".{draft.name}"):
            entry.unlink(missing_ok=True)


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
    others = [other for other in _in_other_containers(final, where) if other.exists()]
    if overwrite and others and not isinstance(where, Bucket):
        raise UserError(
            f"{final}: is the checkpoint of {others[0].name} too, which would lose it; name another --store"
        )
    return found


def _check_same_options(found: Checkpoint | None, config: ExtractConfig, final: Path) -> None:
    """Raise UserError if a checkpoint would be replaced by that of other options, unasked."""
    other = None if found is None or config.overwrite else differing(config, found)
    if other is not None:
        raise _of_another_store(final, "with another {} ({}) than now ({})".format(*other))


def _check_same(found: Checkpoint | None, new: Checkpoint, config: ExtractConfig, final: Path) -> None:
    """Raise UserError if a checkpoint would be replaced by another one, unasked."""
    if found is None or config.overwrite:
        return
    same_images = found.fingerprint == new.fingerprint and _digests(found) == _digests(new)
    if not (same_images and found.transform == new.transform):
        raise _of_another_store(final, "of other images")


def _digests(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {split: record["digest"].numpy().tobytes() for split, record in (checkpoint.images or {}).items()}


def _of_another_store(final: Path, how: str) -> UserError:
    return UserError(
        f"{final}: is the checkpoint of an earlier store, {how}; pass --overwrite to replace it, or name "
        "another --store"
    )
