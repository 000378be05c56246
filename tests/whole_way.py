"""Random data sets and options for the tests that run every command.

A `Case` has the files on disk and the options. `counted` finds the expected result by walking the folder,
without the program.
"""

import io
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from finetune.methods.losses import LOSSES
from finetune.methods.registry import METHODS

MODES = {  # a format that preserves each mode
    "L": ("png", "jpeg", "bmp", "gif", "tiff", "webp"),
    "RGB": ("png", "jpeg", "bmp", "tiff", "webp", "ppm"),
    "RGBA": ("png", "tiff", "webp"),
    "P": ("png", "gif", "bmp"),
    "1": ("png", "bmp", "tiff"),
    "LA": ("png",),
    "CMYK": ("jpeg", "tiff"),
    "I;16": ("png", "tiff"),
}
SUFFIXES = {"jpeg": (".jpg", ".JPEG", ".jfif"), "tiff": (".tif", ".TIFF"), "ppm": (".ppm",)}
ODD_NAMES = (
    *(
        "x\r",
        "a\nb",
        " a",
        "a ",
        "\t",
        "é",
        "e\u0301",
        "ﬁ",
        "٣",
        "\ufeff",
        "\u202e",
        "\x7f",
        "nan",
        "NULL",
        "1e3",
    ),
    *(
        "007",
        '"',
        "'",
        "a,b",
        "$x$",
        "\\",
        "*",
        "%s",
        "{0}",
        "-x",
        "~",
        "_x",
        "A",
        "a",
        "train",
        "test",
        ".x",
    ),
)
LONGEST = 60  # bytes of a class name: file systems take 255, and temporary folders have names too


@dataclass(frozen=True)
class Picture:
    """One image file: how its pixels are stored, and its name below its class folder."""

    mode: str
    format: str
    size: tuple[int, int]
    seed: int
    folder: str
    suffix: str


@dataclass(frozen=True)
class Case:
    """Images of every class by split, other files, and the options of each command."""

    class_names: tuple[str, ...]
    splits: dict[str, list[list[Picture]]] = field(repr=False)
    clutter: tuple[str, ...]
    train: tuple[str, ...]
    extract: tuple[str, ...]
    finetune: tuple[str, ...]
    container: str


def class_names() -> st.SearchStrategy[str]:
    """Any name that a file system accepts; odd ones more often than by chance."""
    anything = st.text(
        st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12
    )
    odd = st.sampled_from(ODD_NAMES)
    name = st.one_of(anything, odd, st.sampled_from(["ape", "bee", "cat", "dog"]))
    return name.filter(lambda n: n not in (".", "..") and len(n.encode()) <= LONGEST)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """One file."""
    mode = draw(st.sampled_from(["L", "RGB", "RGB", *MODES]))
    format_ = draw(st.sampled_from(MODES[mode]))
    suffix = draw(st.sampled_from([*SUFFIXES.get(format_, (f".{format_}", f".{format_.upper()}")), ""]))
    size = (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    folder = draw(st.sampled_from(["", "", "", "sub", "sub/deeper", "x y"]))
    return Picture(mode, format_, size, draw(st.integers(0, 2**16)), folder, suffix)


def optional(name: str, values: st.SearchStrategy) -> st.SearchStrategy[tuple[str, ...]]:
    """An option, or nothing."""
    named = values.map(
        lambda value: (name,) if value is True else () if value is False else (name, str(value))
    )
    return st.one_of(st.just(()), named)


def several(*options: st.SearchStrategy[tuple[str, ...]]) -> st.SearchStrategy[tuple[str, ...]]:
    """All of some options, flat."""
    return st.tuples(*options).map(lambda chosen: tuple(part for option in chosen for part in option))


TRAIN = several(
    st.sampled_from([8, 12, 16, 72]).map(lambda size: ("--image-size", str(size))),
    optional("--imbalance-factor", st.sampled_from([1, 1.5, 2])),
    optional("--no-flip", st.booleans()),
    optional("--batch-size", st.integers(1, 16)),
    optional("--seed", st.integers(0, 3)),
    optional("--precision", st.sampled_from(["fp32", "bf16"])),
    optional("--skip-bad-images", st.booleans()),
)
EXTRACT = several(
    optional("--views", st.integers(1, 3)),
    optional("--dtype", st.sampled_from(["float16", "float32", "bfloat16", "int8", "float8_e4m3"])),
    optional("--codec", st.sampled_from(["none", "zstd", "lz4"])),
    optional("--batch-size", st.integers(1, 16)),
)
FINETUNE = several(
    st.sampled_from(list(METHODS)).map(lambda method: ("--method", method)),
    st.integers(1, 5).map(lambda n: ("--iterations", str(n))),
    optional("--loss", st.sampled_from(list(LOSSES))),
    optional("--sampling", st.sampled_from(["uniform", "balanced", "halves"])),
    optional("--mix-share", st.sampled_from([0.1, 1])),
    optional("--mix-classes", st.sampled_from(["tail", "all", "fill"])),
    optional("--batch-size", st.sampled_from([8, 16, 32])),
    optional("--lr", st.sampled_from([1e-4, 0.01, 1])),
    optional("--head-ratio", st.sampled_from([0.3, 0.5, 0.9])),
    optional("--confusing-classes", st.integers(1, 3)),
    optional("--tail-draw", st.sampled_from(["samples", "classes"])),
    optional("--keep", st.sampled_from(["last", "best"])),
    optional("--rank-by", st.sampled_from(["balanced", "overall"])),
    optional("--select-on", st.sampled_from(["val", "test"])),
    optional("--shot-rule", st.sampled_from(["oltr", "5,3", "2,2"])),
    optional("--residency", st.sampled_from(["host", "stream"])),
    optional("--tau", st.sampled_from([0, 0.5, 2])),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A data set and options; usually long-tailed, and sometimes without val."""
    names = draw(st.lists(class_names(), min_size=2, max_size=4, unique=True))
    most = {"train": (draw(st.integers(1, 4)), 9), "test": (0, 3), "val": (0, 2)}
    validation = draw(st.sampled_from(["none", "folder", "option"]))
    present = ["train", "test", *(["val"] if validation == "folder" else [])]
    splits = {
        split: [draw(st.lists(pictures(), min_size=most[split][0], max_size=most[split][1])) for _ in names]
        for split in present
    }
    for of_split in splits.values():
        if not any(of_split) and draw(
            st.integers(0, 9)
        ):  # a split without images is an error: only sometimes
            of_split[-1].append(draw(pictures()))
    clutter = draw(st.lists(st.sampled_from(["notes.txt", ".hidden.png", "empty", "broken"]), unique=True))
    held_out = ("--val-per-class", str(draw(st.integers(1, 2)))) if validation == "option" else ()
    options = (draw(TRAIN) + held_out, draw(EXTRACT), draw(FINETUNE))
    return Case(tuple(names), splits, tuple(clutter), *options, draw(st.sampled_from([".zarr", ".h5"])))


def write(case: Case, root: Path) -> bool:
    """Write the images of a case to disk; whether the file system keeps its names unchanged."""
    for split, of_split in case.splits.items():
        for name, of_class in zip(case.class_names, of_split, strict=True):
            if not of_class:
                continue  # a class without test images has no folder
            for i, picture in enumerate(of_class):
                path = root / split / name / picture.folder / f"{i}{picture.suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(picture))
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in case.clutter:
            for folder in [folder for folder in (root / split).iterdir() if folder.is_dir()]:
                _clutter(folder / name)
    return set(os.listdir(root / "train")) == set(case.class_names)


def _clutter(path: Path) -> None:
    if path.name == "broken":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"" if path.name == "empty" else b"no image")


def encoded(picture: Picture) -> bytes:
    """The encoded bytes of a picture of noise."""
    random = np.random.default_rng(picture.seed)
    width, height = picture.size
    if picture.mode == "I;16":
        image = Image.fromarray(random.integers(0, 4000, (height, width), np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(picture.mode)
    buffer = io.BytesIO()
    image.save(buffer, picture.format)
    return buffer.getvalue()


def counted(root: Path, split: str) -> dict[str, list[str]]:
    """Paths of all images below the root by class, found with only the file system and Pillow."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root / "train")):
        if name.startswith("."):
            continue
        found[name] = []
        for folder, _, files in os.walk(root / split / name):
            for file in files:
                path = Path(folder) / file
                if not file.startswith(".") and _opens(path):
                    found[name].append(path.relative_to(root).as_posix())
    return found


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.size > (0, 0)
    except OSError:
        return False


def look_alike(names: tuple[str, ...]) -> bool:
    """Whether two of the names differ only in their Unicode form."""
    return len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
