"""Which files `--train`, `--val` and `--test` mean: one, those of a pattern, or a folder's Parquet files.

In a folder, names may begin with the split, as `train-00000-of-00004.parquet`. Then `--train FOLDER` alone
means all splits that are there.
"""

import glob
import re
from pathlib import Path
from typing import Any

from extract.sources.held_out import split_called
from extract.sources.source import check_file
from store.errors import UserError
from store.schema import SPLITS

PART = re.compile(r"(.*)-(\d+)-of-(\d+)\.parquet")  # of a table that was divided


def table_files(config: Any) -> list[tuple[Path, str | None]]:
    """The files that the DatasetConfig `config` names, each with its split, None if its rows say it.

    Raises:
        UserError: an option names no file.
    """
    files: list[tuple[Path, str | None]] = []
    is_only = config.val is None and config.test is None
    for split in SPLITS:
        named = getattr(config, split)
        if named is None:
            continue
        if Path(named).is_dir():
            files += _in_folder(split, Path(named), is_only)
        elif not Path(named).exists() and glob.has_magic(named):
            found = sorted(path for path in glob.glob(named, recursive=True) if Path(path).is_file())
            if not found:
                raise UserError(f"--{split} {named}: no file matches this pattern")
            files += [(Path(path), None if is_only else split) for path in found]
        else:
            check_file(split, named)
            files.append((Path(named), None if is_only else split))
    return files


def notes_of_missing_parts(config: Any) -> list[str]:
    """What to say of a folder or a pattern that holds some of the files into which others were divided.

    Their names say how many there are: `train-00000-of-00004.parquet`. A file that is named itself is meant.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for path, _ in table_files(config):
        part = PART.fullmatch(path.name)
        if part is not None and str(path) not in map(str, map(config.__getattribute__, SPLITS)):
            found.setdefault((f"{path.parent / part[1]}", int(part[3])), []).append(int(part[2]))
    notes = []
    for (name, n_parts), parts in found.items():
        missing = sorted(set(range(n_parts)) - set(parts))
        if missing:
            notes.append(
                f"{name}-*-of-{n_parts:05d}: {len(missing):,} of {n_parts:,} files are not there (the first "
                f"is number {missing[0]}), so the images in them are left out"
            )
    return notes


def folder_of(named: str) -> Path:
    """The folder that is named, or that of a table, or that below which a pattern begins."""
    if Path(named).is_dir():
        return Path(named)
    folder = Path(named).parent
    while glob.has_magic(str(folder)) and not folder.exists():
        folder = folder.parent
    return folder


def _in_folder(option: str, folder: Path, is_only: bool) -> list[tuple[Path, str | None]]:
    found = {path: _split_of(path) for path in sorted(folder.glob("*.parquet"))}
    if not found:
        raise UserError(
            f"--{option} {folder}: is a folder without Parquet files (*.parquet); name a table or, for class "
            "folders, --root alone"
        )
    if not any(found.values()):
        return [(path, None if is_only else option) for path in found]
    if None in found.values():
        odd = next(path for path, split in found.items() if split is None)
        raise UserError(
            f"{odd}: its name begins with no split, unlike others in {folder}; rename it, or name the files "
            "of each split with --train, --val and --test"
        )
    if is_only:
        return list(found.items())
    files = [(path, split) for path, split in found.items() if split == option]
    if not files:
        raise UserError(f"--{option} {folder}: no file's name begins with {option}, as {option}-0.parquet")
    return files


def _split_of(path: Path) -> str | None:
    """The split that the name of a file begins with."""
    return split_called(path.name.split(".")[0].split("-")[0])
