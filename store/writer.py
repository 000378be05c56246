"""Writing a store block by block, in parallel with the computation, so that a kill costs few blocks.

A draft records what the store will be and which blocks are on disk. A block is written and synced, then
recorded. After the last block come the checksums, `complete` is set, and the draft becomes the store.
"""

import errno
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from store import provenance
from store.arrays.checksum import crc32c, metadata_checksum
from store.arrays.maps import buffer_dtypes, encoded
from store.drafts.journal import Commit, by_block, check_all_written, checksums_of
from store.drafts.lifecycle import Draft, opened_draft
from store.errors import Interrupted, StoreError
from store.schema import CHECKSUM, FINISHED, SPLITS, is_scale
from store.spec import StoreSpec
from store.storage.s3 import Bucket, BucketError

CHECKSUM_THREADS = 8  # many small files, and the disk syncs many at once
IN_FLIGHT = 2  # blocks being written: one is written while the other is synced and the next is computed
NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than the file system or `ulimit -f` permits",
}
KNOWN = "known"  # the commit group of the arrays known beforehand
LATE = "classifier"  # of an FC layer that is only known once all rows are there
CAM = "cam"  # of the class activation maps of such an FC layer


@contextmanager
def write_store(
    where: Path | Bucket, spec: StoreSpec, resume: bool, overwrite: bool
) -> Iterator["StoreWriter"]:
    """Start or resume a store; committed blocks stay if the `with` block raises.

    Raises:
        StoreError: something is in the way, another process writes the store, or the draft is another
            store's.
        Interrupted: Ctrl-C, once there is something to resume.
    """
    with opened_draft(where, spec, resume, overwrite) as (draft, begun, replaces):
        writer = None
        try:
            own_spec = spec.as_begun(begun) if begun else spec
            writer = StoreWriter(where, draft, own_spec, begun, replaces)
            yield writer
        except KeyboardInterrupt as error:
            kept = writer is not None and writer.stopped().has_rows
            raise (Interrupted() if kept else error) from error
        finally:
            kept = begun is not None if writer is None else writer.stopped().has_rows
            if not kept:
                draft.discard()


class StoreWriter:
    """Fills one store; `write_store` makes it.

    Attributes:
        n_resumed: blocks that an earlier attempt wrote.
        has_rows: whether a block that took computing is on disk.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        layer_dtypes: of the maps of earlier layers, by the layer's name.
        n_classes: K.
        splits: names of the splits that it will hold.
        paths: of the arrays that it will hold; optional ones may be absent.
    """

    def __init__(
        self,
        where: Path | Bucket,
        draft: Draft,
        spec: StoreSpec,
        begun: dict[str, Any] | None,
        replaces: bool,
    ):
        self._where, self._draft, self._spec, self._replaces = where, draft, spec, replaces
        self.map_dtype, self.layer_dtypes = spec.map_dtype, spec.layer_dtypes
        self.n_classes = len(spec.class_names)
        self.splits = [split for split in SPLITS if f"{split}/pooled" in spec.layouts]
        self.paths = frozenset(spec.layouts)
        self._container = draft.container(spec.layouts, begun["state"] if begun else {})
        self._log = draft.log()
        self._in_flight: deque[Future] = deque()
        if begun is None:
            with self._disk():
                begun = self._begin(replaces)
        else:
            draft.tidy()
            with self._disk():
                self._container.prepare_resume(begun["attributes"])
        self._begun = begun
        self._log.commits = [commit for commit in self._log.commits if self._holds(commit)]
        self._committed = {(commit.group, commit.block) for commit in self._log.commits}
        self.n_resumed = len(self._committed)
        self._buffer: dict[str, np.ndarray] = {}
        self._pool = ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="store writer")

    def _begin(self, replaces: bool) -> dict[str, Any]:
        self._container.create(self._spec.attributes)
        begun = {
            "identity": self._spec.identity,
            "layouts": self._spec.layouts_as_json,
            "attributes": self._spec.attributes,
            "replaces": replaces,
            "state": self._container.state,
        }
        self._draft.begin(begun)
        return begun

    def _holds(self, commit: Commit) -> bool:
        return all(self._container.holds(path, commit.block) for path in commit.checksums)

    @property
    def has_rows(self) -> bool:
        """Whether a block that the network filled was committed."""
        return any(commit.group != KNOWN for commit in self._log.commits)

    def write_known(self, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays known beforehand, by path; those that the store does not hold are skipped.

        Nothing is written if an earlier attempt wrote them.
        """
        if (KNOWN, 0) not in self._committed:
            layouts = self._spec.layouts
            cast = {p: np.asarray(value, layouts[p].dtype) for p, value in arrays.items() if p in layouts}
            self._submit(KNOWN, 0, cast)

    def missing(self, split: str) -> list[tuple[int, int]]:
        """First row, and the row after the last one, of every missing block of a split."""
        layout = self._spec.layouts[f"{split}/pooled"]
        return [layout.block(i) for i in range(layout.n_blocks) if (split, i) not in self._committed]

    def write(self, split: str, start: int, rows: dict[str, np.ndarray], every: int = 1) -> None:
        """Write rows `start`, `start + every`, … of a split, by array name.

        A block's first row must come first and its last row last, after all others. Returns as soon as the
        rows are copied; they are written in the background. If `rows` has scales, its maps are codes already,
        and the rows must be a whole block.

        Raises:
            StoreError: an earlier block could not be written, for example because the disk is full.
        """
        first = self._spec.layouts[f"{split}/pooled"]
        block = start // first.block_rows
        begin, end = first.block(block)
        if any(is_scale(f"{split}/{name}") for name in rows):
            self._submit(split, block, {f"{split}/{name}": value for name, value in rows.items()})
            return
        if start == begin:
            self._buffer = {
                name: np.empty((end - begin, *value.shape[1:]), self._buffer_dtype(f"{split}/{name}"))
                for name, value in rows.items()
            }
        last = start + (len(rows["pooled"]) - 1) * every
        for name, value in rows.items():
            self._buffer[name][start - begin : last + 1 - begin : every] = value
        if last + 1 == end:
            self._submit(split, block, {f"{split}/{name}": value for name, value in self._buffer.items()})
            self._buffer = {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What the store records of how it was made, without its identity."""
        recorded = self._begun["attributes"]["provenance"]
        return {name: value for name, value in recorded.items() if name != "identity"}

    @property
    def has_classifier(self) -> bool:
        """Whether an earlier attempt wrote the FC layer with `write_classifier`."""
        return (LATE, 0) in self._committed

    def write_classifier(self, arrays: dict[str, np.ndarray], provenance: dict[str, Any]) -> None:
        """Write an FC layer that follows from the rows, by path, and the provenance that follows from it.

        The provenance is recorded first, so that whoever finds the FC layer finds it too.
        """
        self._wait(0)
        self._draft.confirm_lock()
        was = self._begun["attributes"]
        now = was | {"provenance": provenance | {"identity": was["provenance"]["identity"]}}
        with self._disk():
            self._container.amend(was, now)
            self._begun = self._begun | {"attributes": now, "state": self._container.state}
            self._draft.begin(self._begun)
            self._container.write_attributes(now)
        self._submit(
            LATE, 0, {p: np.asarray(rows, self._spec.layouts[p].dtype) for p, rows in arrays.items()}
        )
        self._wait(0)

    def missing_cams(self) -> list[int]:
        """Blocks of maps whose class activation maps are missing."""
        n_blocks = self._spec.layouts["train/cam"].n_blocks
        return [i for i in range(n_blocks) if (CAM, i) not in self._committed]

    def write_cams(self, block: int, cam: np.ndarray) -> None:
        """Write the class activation maps (B, H, W) of one block of maps, in the background."""
        self._submit(CAM, block, {"train/cam": cam.astype(self._spec.layouts["train/cam"].dtype)})

    def read_back(self, path: str) -> Iterator[np.ndarray]:
        """The blocks of a written array, in order, as they are stored."""
        return (self.read_block(path, block) for block in range(self._spec.layouts[path].n_blocks))

    def read_block(self, path: str, block: int) -> np.ndarray:
        """The rows of one written block.

        Raises:
            StoreError: they are not as they were written.
        """
        self._wait(0)
        try:
            rows = self._container.read_block(path, block)
            intact = crc32c(rows) == by_block(self._log.commits)[path, block]
        except (FileNotFoundError, ValueError):
            intact = False
        if not intact:
            raise StoreError(
                f"{self._draft}: block {block} of {path} is damaged; pass --overwrite to start over"
            )
        return rows

    def _buffer_dtype(self, path: str) -> np.dtype:
        return buffer_dtypes(self._spec.map_dtypes).get(path, np.dtype(self._spec.layouts[path].dtype))

    def finish(self) -> None:
        """Wait for the disk, add the time and the checksums, set `complete`, and publish the store.

        Raises:
            StoreError: rows are missing.
        """
        self._wait(0)
        check_all_written(self._where, self._log.commits, self._spec.layouts)
        if (FINISHED, 0) not in self._committed:  # else an earlier attempt had all rows and died later
            self._submit(FINISHED, 0, {FINISHED: np.array([provenance.now()], "int64")})
            self._wait(0)
        checksums = checksums_of(self._log.commits, self._spec.layouts)
        checksums["metadata"] = [metadata_checksum(self._begun["attributes"], self._spec.layouts)]
        with self._disk():
            with ThreadPoolExecutor(CHECKSUM_THREADS) as executor:
                list(executor.map(self._write_checksums, checksums.items()))
            self._draft.confirm_lock()
            self._container.finish()
            self._draft.publish(self._replaces)

    def _write_checksums(self, item: tuple[str, list[int]]) -> None:
        path, of_blocks = item
        self._container.write_block(f"{CHECKSUM}/{path}", 0, np.array(of_blocks, "uint32"))

    def stopped(self) -> "StoreWriter":
        """Wait until everything submitted is written, end the threads, and return the writer."""
        self._pool.shutdown(wait=True)
        return self

    def _submit(self, group: str, block: int, arrays: dict[str, np.ndarray]) -> None:
        self._in_flight.append(self._pool.submit(self._commit, group, block, arrays))
        self._wait(IN_FLIGHT)

    def _commit(self, group: str, block: int, arrays: dict[str, np.ndarray]) -> None:
        arrays = encoded(arrays, self._spec.map_dtypes)
        for path, rows in arrays.items():
            self._container.write_block(path, block, rows)
        self._log.append(Commit(group, block, {path: crc32c(rows) for path, rows in arrays.items()}))

    def _wait(self, at_most: int) -> None:
        while len(self._in_flight) > at_most:
            with self._disk():
                self._in_flight.popleft().result()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            wait(self._in_flight)  # whether more blocks get to the disk decides the advice
            n_blocks = f"{len(self._log.commits)} blocks"
            raise StoreError(
                f"{self._where}: {NO_ROOM[error.errno]} after {n_blocks}; make room, then run {self._rerun}"
            ) from error
        except BucketError as error:
            wait(self._in_flight)
            raise StoreError(f"{error}; then run {self._rerun}") from error

    @property
    def _rerun(self) -> str:
        return "the same command with --resume" if self.has_rows else "it again"
