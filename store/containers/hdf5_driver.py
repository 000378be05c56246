"""A file driver that lets HDF5 survive a full disk.

After a write error, HDF5 can neither close its file nor forget it, and tries again when the process exits. So
it never sees the error: from the first one on, what it writes is kept in memory, where it can read it back.
The error is raised when the file is closed, or earlier by `check`.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

ALIGNMENT = 4096  # of rows in the file: whole pages
PAGE = 4096  # bytes that are kept together


class PatientFile(io.RawIOBase):
    """The file that HDF5 writes to."""

    def __init__(self, path: Path, mode: str):
        super().__init__()
        self._file = path.open(mode, buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._position = 0
        self._error: tuple[int, str] | None = None  # without a traceback, which would keep HDF5's objects
        self._kept: dict[int, bytearray] = {}  # pages that could not be written

    def check(self) -> None:
        """Raise the disk's first error, if there was one."""
        if self._error is not None:
            raise OSError(*self._error)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in io.RawIOBase."""
        self._position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        )
        return self._position

    def tell(self) -> int:
        """As in io.RawIOBase."""
        return self._position

    def readinto(self, target: memoryview) -> int:
        """As in io.RawIOBase."""
        view = memoryview(target).cast("B")
        n_bytes = max(0, min(len(view), self._size - self._position))
        content = os.pread(self._file.fileno(), n_bytes, self._position)
        view[:n_bytes] = content + bytes(n_bytes - len(content))
        for page, start, stop, at in _pages(self._position, n_bytes) if self._kept else ():
            if page in self._kept:
                view[at : at + stop - start] = self._kept[page][start:stop]
        self._position += n_bytes
        return n_bytes

    def write(self, content: memoryview) -> int:
        """As in io.RawIOBase, except that it never fails."""
        view = memoryview(content).cast("B")
        rest = view
        while len(rest) and self._error is None:
            try:
                rest = rest[os.pwrite(self._file.fileno(), rest, self._position + len(view) - len(rest)) :]
            except OSError as error:
                self._error = (error.errno, error.strerror)
        if len(rest):
            self._keep(self._position, view)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """As in io.RawIOBase, except that it never fails."""
        self._size = self._position if size is None else size
        try:
            self._file.truncate(self._size)
        except OSError as error:
            self._error = self._error or (error.errno, error.strerror)
        return self._size

    def close(self) -> None:
        """As in io.RawIOBase."""
        self._file.close()
        super().close()

    def _keep(self, position: int, content: memoryview) -> None:
        for page, start, stop, at in _pages(position, len(content)):
            if page not in self._kept:
                found = os.pread(self._file.fileno(), PAGE, page * PAGE)
                self._kept[page] = bytearray(found + bytes(PAGE - len(found)))
            self._kept[page][start:stop] = content[at : at + stop - start]


def _pages(position: int, n_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """Pages that a run of bytes touches: number, start and stop within the page, position in the run."""
    at = 0
    while at < n_bytes:
        page, start = divmod(position + at, PAGE)
        stop = min(PAGE, start + n_bytes - at)
        yield page, start, stop, at
        at += stop - start


@contextmanager
def create_file(path: Path) -> Iterator[tuple[h5py.File, PatientFile]]:
    """A new HDF5 file; the same content gives the same bytes.

    Raises:
        OSError: at the end, if a write failed.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # else no two files are equal
    with PatientFile(path, "wb+") as disk:
        created = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, _access(disk))
        with h5py.File(created) as file:
            yield file, disk
        disk.check()


@contextmanager
def change_file(path: Path) -> Iterator[h5py.File]:
    """An existing HDF5 file, open for changes.

    Raises:
        OSError: at the end, if a write failed.
    """
    with PatientFile(path, "rb+") as disk:
        opened = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDWR, _access(disk))
        with h5py.File(opened) as file:
            yield file
        disk.check()


def _access(disk: PatientFile) -> h5py.h5p.PropFAID:
    """HDF5's access properties. Keep no reference: one in a traceback crashes the process at exit."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_alignment(ALIGNMENT, ALIGNMENT)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, disk)
    return access
