"""Shared by tests of bad input: images to damage, and `refuse`, which requires a one-line error.

Good input that looks odd (16-bit grey, palettes, WebP) is tested beside the bad, to show that it is not
refused.
"""

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from cli import main

TINY = ["--arch", "resnet8", "--width", "4", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]
FOLDER = ["--dataset", "imagefolder", "--image-size", "16"]
QUICK = ["--iterations", "2", "--eval-every", "1", "--device", "cpu"]
FEW_CLASSES = ["--confusing-classes", 2, "--head-ratio", 0.4]  # gives PER_CLASS's three classes a tail
PER_CLASS = {"ape": 8, "bee": 6, "cat": 4}


def run(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeed(*arguments: object) -> Result:
    """Run a command that must succeed; a bug is raised with its traceback."""
    result = run(*arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def refuse(*arguments: object, says: list[object]) -> str:
    """Run a command that must fail with one line (besides notes) that has each of `says`; no file changes."""
    before = snapshot(Path())
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip() and ": note: " not in line]
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert "Traceback" not in lines[0]
    for fragment in says:
        assert str(fragment) in lines[0], lines[0]
    assert snapshot(Path()) == before
    return lines[0]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every path under a folder, hidden ones too, but for what Python compiled."""
    paths = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()} | {
        f"{p}/": (0, 0) for p in paths if p.is_dir()
    }


def write_images(root: Path, per_class: dict[str, int] = PER_CLASS, splits=("train", "test")) -> Path:
    """Class folders of 12×12 noise."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name, n in per_class.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{i}.png")
    return root
