"""Tests marked `forks` run in a process without torch: to fork one that has it costs ten times as much.

The process is started when the first of them comes, and forks itself for each. Fixtures are those of the
test's own process; what they set of SETTINGS is set here as well.
"""

import atexit
import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SETTINGS = ("store.layout.BLOCK_BYTES", "store.layout.PACKED_CHUNK_BYTES", "made_store.CODEC")
LONGEST = 500  # characters of a line of a failure: local variables may be whole stores
PLUGINS = ("hdf5plugin",)  # where it is imported, HDF5 writes names of filters too


@cache
def _server() -> subprocess.Popen:
    """The process that waits to be told which test to run."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    loaded = [name for name in PLUGINS if name in sys.modules]
    server = subprocess.Popen(
        [sys.executable, __file__, *loaded],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen) -> None:
    server.kill()
    server.wait()


def run(test: Callable, arguments: dict[str, object]) -> None:
    """Run a test of a module there; the test fails here with what it raised."""
    settings = {name: attrgetter(name.partition(".")[2])(_module(name)) for name in SETTINGS}
    known = {name: value for name, value in arguments.items() if name != "monkeypatch"}
    server = _server()
    pickle.dump((os.getcwd(), settings, test.__module__, test.__name__, known), server.stdin)
    server.stdin.flush()
    failure = pickle.load(server.stdout)
    if failure is not None:
        pytest.fail(failure, pytrace=False)


def _module(setting: str) -> object:
    return importlib.import_module(setting.partition(".")[0])


def _serve() -> None:
    """Fork for each test that is asked for, and answer with what it raised, None for nothing."""
    for plugin in sys.argv[1:]:
        importlib.import_module(plugin)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            asked = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        importlib.import_module(asked[2])  # once, for all of its tests
        with tempfile.TemporaryFile("w+") as said:
            child = os.fork()
            if not child:
                for output in (1, 2):
                    os.dup2(said.fileno(), output)
                _run(*asked)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            pickle.dump(f"{said.read()}\nended with {code}" if code else None, answers)
        answers.flush()


def _run(folder: str, settings: dict[str, object], module: str, name: str, arguments: dict) -> None:
    from faults import end_if_hung
    from made_store import stopped_clock

    end_if_hung()
    code = 1
    try:
        os.chdir(folder)
        patch = pytest.MonkeyPatch()
        for setting, value in settings.items():
            patch.setattr(setting, value)
        patch.setattr(os, "fsync", lambda file: None)  # a process that is killed loses nothing unsynced
        test = getattr(importlib.import_module(module), name)
        if "monkeypatch" in test.__code__.co_varnames[: test.__code__.co_argcount]:
            arguments["monkeypatch"] = patch
        with stopped_clock():
            test(**arguments)
        code = 0
    except BaseException:
        raised = traceback.TracebackException(*sys.exc_info(), capture_locals=True)
        lines = "".join(raised.format()).splitlines()
        print(*(line[:LONGEST] for line in lines), sep="\n", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
