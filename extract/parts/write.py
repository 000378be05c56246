"""The writer of this process: of the whole store, of a part, or of a rank's part."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extract.config import ExtractConfig
from extract.parts.options import is_rank
from extract.parts.ranks import Ranks
from store.drafts.lifecycle import check_writable, is_finished
from store.errors import InUseError
from store.notes import note
from store.parts.join import join_if_last
from store.parts.part import Part
from store.parts.writer import PartWriter, check_not_begun, check_part_writable, write_part
from store.spec import StoreSpec
from store.storage.s3 import Bucket
from store.writer import StoreWriter, write_store

Place = Path | Bucket


def check_place(where: Place, config: ExtractConfig, part: Part | None) -> None:
    """Raise UserError if the store, or a part of it, cannot be written, before anything is computed."""
    if part is None:
        check_writable(where, config.resume, config.overwrite)
    else:
        is_later = is_rank() and part.number > 1  # the first may have begun
        check_part_writable(where, part, config.resume or is_later, config.overwrite)
        if is_rank() and not (is_later or config.resume or config.overwrite):
            check_not_begun(where)


@contextmanager
def opened_writer(
    where: Place, spec: StoreSpec, config: ExtractConfig, part: Part | None
) -> Iterator[StoreWriter | None]:
    """The writer of what this process has to write; the last rank completes the store afterwards.

    Yields:
        The writer; None if the store is complete already, and to be resumed.

    Raises:
        UserError: something is in the way, or the draft is of other options.
    """
    if part is None:
        if config.resume and is_finished(where, spec, config.overwrite):
            yield None
        else:
            with write_store(where, spec, config.resume, config.overwrite) as writer:
                yield writer
    elif is_rank():
        with _of_rank(where, spec, config, Ranks(part)) as writer:
            yield writer
    elif config.resume and _is_finished(where, spec):
        yield None
    else:
        with write_part(where, spec, part, config.resume) as writer:
            _tell(where, writer)
            yield writer


@contextmanager
def _of_rank(
    where: Place, spec: StoreSpec, config: ExtractConfig, ranks: Ranks
) -> Iterator[PartWriter | None]:
    ranks.wait_for_first()
    resume = config.resume or not ranks.is_first  # what the first has begun
    if resume and _is_finished(where, spec):
        ranks.tell_begun()
        yield None
        ranks.wait_for_others()
        return
    with write_part(where, spec, ranks.part, resume, config.overwrite and ranks.is_first) as writer:
        ranks.tell_begun()
        _tell(where, writer)
        yield writer
    ranks.wait_for_others()
    writer.completed = join_if_last(where)


def _is_finished(where: Place, spec: StoreSpec) -> bool:
    try:
        return is_finished(where, spec, overwrite=False)
    except InUseError:  # another one is tidying up
        return True


def _tell(where: Place, writer: PartWriter) -> None:
    """Say which part this process has."""
    (blocks, all_blocks), (rows, all_rows) = writer.n_blocks, writer.n_rows
    note(
        f"{where}: this process writes part {writer.part}: {blocks:,} of {all_blocks:,} blocks, {rows:,} of "
        f"{all_rows:,} rows"
    )
