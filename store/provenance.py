"""What made a file: versions of the program and of what it stands on."""

import platform
from importlib.metadata import PackageNotFoundError, version

import store

PACKAGES = ("torch", "torchvision", "zarr", "h5py", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Versions by name, without importing anything."""
    found = {"tailcache": store.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
