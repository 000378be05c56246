"""How tests are run: where their files go, in which order, and in which process."""

import inspect
import os
import tempfile

import pytest
import small_process

MEMORY = "/dev/shm"  # as a disk: the suite writes and removes some hundred thousand small files
LONGEST = (
    "test_whole_way.py",
    "test_wheel.py",
    "test_gpu_script.py",
    "test_cli_misuse.py",
    "test_api_docs.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Put temporary files in memory, unless TMPDIR is set, room is short, or programs cannot run there.

    The process that only hands out tests to others does not wait for torch.
    """
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK):
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize >= 2 * 1024**3 and not found.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"], tempfile.tempdir = MEMORY, None
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no core waits at the end.

    Tests marked `cuda` run on machines with a GPU; elsewhere they are deselected.
    """
    import torch

    items.sort(key=lambda item: item.path.name not in LONGEST)
    if torch.cuda.is_available():
        return
    for_gpu = [item for item in items if item.get_closest_marker("cuda")]
    config.hook.pytest_deselected(items=for_gpu)
    items[:] = [item for item in items if item not in for_gpu]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests marked `forks` run in a process that is small."""
    if not pyfuncitem.get_closest_marker("forks"):
        return None
    names = inspect.signature(pyfuncitem.function).parameters
    small_process.run(pyfuncitem.function, {name: pyfuncitem.funcargs[name] for name in names})
    return True
