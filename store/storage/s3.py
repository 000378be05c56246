"""A prefix of an S3 bucket that holds a zarr store.

Requests go through obstore, which zarr-python supports too. The alternative, fsspec's s3fs, pins botocore to
single versions (by aiobotocore), reads through one thread's event loop, and cannot create an object only if
it is new, which a lock needs.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from store.errors import StoreError

Part = bytes | np.ndarray  # of an object's content; arrays are one-dimensional uint8
ADVICE = (
    "check address and credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION)"
)
# Early requests fail for a wrong address or missing rights, later ones for the network, which may come back.
IMPATIENT = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
REQUEST_THREADS = 16  # for small objects
BACKOFF = {"init_backoff": timedelta(seconds=1), "max_backoff": timedelta(seconds=15), "base": 2}
PATIENT = {"max_retries": 1000, "retry_timeout": timedelta(minutes=3), "backoff": BACKOFF}
_process: list[int] = []  # the PID that used obstore first: its threads do not survive a fork


class BucketError(StoreError):
    """A request to S3 failed, perhaps only for a while."""


@dataclass(frozen=True)
class S3Object:
    """One object, used like a file's path."""

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.url}/{self.name}"


@dataclass(frozen=True)
class Bucket:
    """A prefix of a bucket. `Folder` has the same methods for a local disk, and documents them.

    Attributes:
        url: `s3://bucket/prefix`.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def suffix(self) -> str:
        """The suffix of the last name, like a path's."""
        return PurePosixPath(self.url).suffix

    def beside(self, suffix: str) -> "Bucket":
        """The place whose name is this one's plus a suffix."""
        return Bucket(self.url + suffix)

    @property
    def zarr_store(self) -> Any:
        """The store that zarr-python can open."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._client)

    def file(self, name: str) -> S3Object:
        """An object, for an Extent."""
        return S3Object(self.url, name)

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by name below the prefix."""
        obstore = _obstore()
        with self.errors():
            return {meta["path"]: meta["size"] for page in obstore.list(self._client) for meta in page}

    def read(self, name: str) -> bytes:
        """A small object. Raises FileNotFoundError if it is absent."""
        return self.read_tagged(name)[0]

    def fetch(self, name: str) -> bytes:
        """An object of any size."""
        obstore = _obstore()
        with self.errors():
            return bytes(obstore.get(self._client, name).bytes())

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small objects by name, fetched in parallel."""
        names = list(names)
        with ThreadPoolExecutor(REQUEST_THREADS) as executor:
            return dict(zip(names, executor.map(self.read, names), strict=True))

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """A small object and its ETag."""
        obstore = _obstore()
        with self.errors():
            found = obstore.get(self._impatient_client, name)
            return bytes(found.bytes()), found.meta["e_tag"]

    def stamp(self, name: str, patient: bool) -> tuple[str | None, int]:
        """Identity of an object, which changes when it is rewritten: its ETag and time in seconds.

        Raises FileNotFoundError if it is absent.

        Args:
            name: of the object.
            patient: whether to keep trying if the network does not answer.
        """
        obstore = _obstore()
        with self.errors():
            found = obstore.get(self._client if patient else self._impatient_client, name)
            found.bytes()  # frees the connection; `head` would not say why it fails
            return found.meta["e_tag"], int(found.meta["last_modified"].timestamp())

    def end(self, name: str, n_bytes: int) -> tuple[bytes, int]:
        """The last bytes of an object, and its size."""
        obstore = _obstore()
        with self.errors():
            found = obstore.get(self._client, name, options={"range": {"suffix": n_bytes}})
            return bytes(found.bytes()), found.meta["size"]

    def ranges(self, name: str, ranges: list[tuple[int, int]]) -> list[np.ndarray]:
        """Bytes (stop − start,) uint8 of each range of an object; near ranges are fetched together."""
        obstore = _obstore()
        starts, stops = zip(*ranges, strict=True)
        with self.errors():
            found = obstore.get_ranges(self._client, name, starts=starts, ends=stops)
        return [np.frombuffer(content, np.uint8) for content in found]

    def write(self, name: str, parts: Iterable[Part]) -> None:
        """Write an object: it appears whole or not at all, and is then durable."""
        obstore = _obstore()
        with self.errors():
            obstore.put(self._client, name, b"".join(parts))

    def write_all(self, files: dict[str, bytes]) -> None:
        """Write small objects in parallel."""
        with ThreadPoolExecutor(REQUEST_THREADS) as executor:
            list(executor.map(lambda item: self.write(item[0], [item[1]]), files.items()))

    def write_if(self, name: str, content: bytes, tag: str | None) -> str | None:
        """Write a small object if its ETag is still `tag`, or if it is absent for None.

        Returns:
            The new ETag; None if the object has another one.
        """
        obstore = _obstore()
        known = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        try:
            with self.errors(*known):
                mode = "create" if tag is None else {"e_tag": tag}
                return obstore.put(self._impatient_client, name, content, mode=mode)["e_tag"]
        except (*known, FileNotFoundError):
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; absent ones are not an error."""
        obstore = _obstore()
        names = list(names)
        with self.errors():
            for start in range(0, len(names), 1000):  # the most that one request may name
                obstore.delete(self._client, names[start : start + 1000])

    def sync(self) -> None:
        """Nothing: an object is durable once it is written."""

    @contextmanager
    def errors(self, *spared: type[Exception]) -> Iterator[None]:
        """Raise a one-line StoreError for errors of S3 and the network, except those in `spared`."""
        try:
            yield
        except spared:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                bucket = self.url.split("/")[2]
                raise StoreError(f"s3://{bucket}: no such bucket; create it, or name another") from error
            raise
        except _obstore().exceptions.BaseError as error:
            raise BucketError(f"{self.url}: {_reason(error)}; {ADVICE}") from error

    @property
    def _client(self) -> Any:
        _check_not_forked(self.url)
        return self._patient

    @property
    def _impatient_client(self) -> Any:
        _check_not_forked(self.url)
        return self._impatient

    @cached_property
    def _patient(self) -> Any:
        return _connect(self.url, PATIENT)

    @cached_property
    def _impatient(self) -> Any:
        return _connect(self.url, IMPATIENT)


def _check_not_forked(url: str) -> None:
    """Raise StoreError in a forked child of the process that used S3 first: requests would hang."""
    if not _process:
        _process.append(os.getpid())
    if _process[0] != os.getpid():
        raise StoreError(f"{url}: S3 was used before this process was forked; start a new process instead")


def _connect(url: str, retry: dict[str, Any]) -> Any:
    obstore = _obstore()
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")  # only if the user asks for it
    try:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return obstore.store.S3Store(
            bucket, prefix=prefix, retry_config=retry, client_options={"allow_http": plain}
        )
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise StoreError(f"{url}: {_reason(error)}; expected s3://bucket/name.zarr") from error


def _obstore() -> Any:
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise StoreError("s3://: needs the package obstore; pip install 'tailcache[s3]'") from error
    return obstore


def _reason(error: Exception) -> str:
    """The first line of an obstore error, without its internals."""
    text = str(error)
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    if "error sending request" in text:
        return f"no answer from {os.environ.get('AWS_ENDPOINT_URL', 'S3')}"
    return code or text.partition("\n")[0][:200]
