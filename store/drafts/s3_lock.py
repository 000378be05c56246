"""The lock of a store in a bucket: an object that only one process can create, and that it keeps renewing.

A killed process cannot remove its lock. If that process ran on this host, the lock is taken over at once; any
other lock is watched, and taken over if nobody renews it for a while. No clocks are compared.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from store.errors import InUseError, StoreError
from store.storage.s3 import Bucket

NAME = "lock.json"
LEASE = 30.0  # seconds without a renewal after which its holder counts as dead
RENEWALS = 3  # per lease
STALE = 20.0  # seconds without a renewal after which the holder checks that it still has the lock


class S3Lock:
    """The lock of one draft, or of one part of it; to be held once.

    Attributes:
        name: of its object.
    """

    def __init__(self, bucket: Bucket, name: str = NAME):
        self._bucket, self.name = bucket, name
        self._token = secrets.token_hex(8)
        self._n_renewals = 0
        self._tag: str | None = None
        self._renewed = 0.0  # monotonic time at which the last renewal was sent
        self._stop = Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, renewing it on a thread.

        Raises:
            StoreError: another process holds it.
        """
        self._tag = self._bucket.write_if(self.name, self._content(), None) or self._take_over()
        self._renewed = time.monotonic()
        thread = Thread(target=self._renew, name="store lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            if self._tag is not None and self._tag_of_ours() is not None:
                self._bucket.delete([self.name])

    @property
    def is_lost(self) -> bool:
        """Whether another process is known to have taken the lock over."""
        return self._tag is None

    def check_held(self) -> None:
        """Raise StoreError if the lock is lost; it is read again if it was not renewed for a while."""
        if not self.is_lost and time.monotonic() - self._renewed > STALE:
            self.confirm()
        elif self.is_lost:
            raise self._lost()

    def confirm(self) -> None:
        """Raise StoreError unless the lock is ours right now; for use before irreversible steps."""
        if self.is_lost or self._tag_of_ours() is None:
            self._tag = None
            raise self._lost()

    def _lost(self) -> StoreError:
        return StoreError(
            f"{self._bucket}: another process has taken over this store; let that one finish it"
        )

    def _content(self) -> bytes:
        self._n_renewals += 1
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "numbered_by": _pid_namespace()}
        return json.dumps(mine | {"token": self._token, "renewals": self._n_renewals}).encode()

    def _renew(self) -> None:
        while not self._stop.wait(LEASE / RENEWALS):
            sent = time.monotonic()
            try:
                self._tag = (
                    self._bucket.write_if(self.name, self._content(), self._tag) or self._tag_of_ours()
                )
            except StoreError:  # the network, which may come back
                continue
            if self._tag is None:
                return
            self._renewed = sent

    def _tag_of_ours(self) -> str | None:
        """The lock's ETag if it is ours: after a lost answer, obstore repeats a write that had succeeded."""
        try:
            content, tag = self._bucket.read_tagged(self.name)
        except FileNotFoundError:
            return None
        return tag if _parsed(content).get("token") == self._token else None

    def _take_over(self) -> str:
        try:
            content, tag = self._bucket.read_tagged(self.name)
        except FileNotFoundError:  # just released
            return self._taken(None)
        holder = _parsed(content)
        if holder.get("token") == self._token:
            return tag
        # Its process is gone, or its PID is ours by now. A live process of that PID may be another one.
        gone = holder.get("numbered_by") == _pid_namespace() and not _is_alive(holder.get("pid"))
        deadline = time.monotonic() + (0 if gone else LEASE)
        while time.monotonic() < deadline:
            self._stop.wait(LEASE / RENEWALS / 4)
            try:
                if self._bucket.read_tagged(self.name)[1] != tag:
                    raise self._in_use(holder)
            except FileNotFoundError:  # released
                return self._taken(None)
        return self._taken(tag)

    def _taken(self, tag: str | None) -> str:
        mine = self._bucket.write_if(self.name, self._content(), tag)
        if mine is None:
            raise self._in_use({})
        return mine

    def _in_use(self, holder: dict[str, Any]) -> InUseError:
        who = f"process {holder['pid']} of {holder['host']}" if holder else "another process"
        number = self.name.removeprefix("lock.part.").removesuffix(".json")
        what = f"part {number.replace('-of-', '/')} of this store" if "-of-" in number else "this store"
        return InUseError(f"{self._bucket}: {who} is writing {what}; wait for it, or stop it")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) and {"host", "pid"} <= found.keys() else {}
    except ValueError:
        return {}


def _pid_namespace() -> list[str]:
    """What PIDs are unique in: this host since its last boot, or a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")]
    except OSError:
        return [socket.gethostname()]


def _is_alive(pid: Any) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
