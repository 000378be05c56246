"""Options of `predict` and `export`."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from extract.deploy.targets import check_new_file, check_new_folder
from extract.options import Device, ImagesAtOnce, Precision, RepeatedArch, Workers
from store.errors import UserError
from store.options import Option, check_bounds

Trained = Annotated[str, Option("checkpoint that `train` or `finetune` wrote", "files")]
EXTRAS = {  # packages that a format needs, of the extra `export`
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}


@dataclass(frozen=True)
class PredictConfig:
    """Options of `predict`.

    Attributes:
        images: image files, folders of them, and tables with a column of paths, or of images (Parquet).
    """

    images: tuple[str, ...]
    ckpt: Trained
    out: Annotated[str | None, Option("CSV file to write", "files", "standard output")] = None
    cam: Annotated[
        str | None,
        Option(
            "new folder for a PNG of each image with the class activation map of its likeliest class",
            "files",
            "none",
        ),
    ] = None
    overwrite: Annotated[bool, Option("replace the file named by --out", "files")] = False
    path_column: Annotated[
        str | None,
        Option("column of a table that holds the images, or their paths", "data", "the obvious one"),
    ] = None
    skip_bad_images: Annotated[
        bool, Option("leave out images that cannot be read, and list them", "data")
    ] = False
    arch: RepeatedArch = None
    top: Annotated[int, Option("likeliest classes to list for each image", "output", least=1)] = 5
    precision: Precision = "fp32"
    batch_size: ImagesAtOnce = 128
    device: Device = "auto"
    workers: Workers = 2

    def check(self) -> None:
        """Raise UserError for a value out of its range, or a target that cannot be written."""
        check_bounds(self)
        if not self.images:
            raise UserError("predict: no images; name files, folders, or a table with their paths")
        for image in self.images:
            if not Path(image).exists():
                raise UserError(f"{image}: no such file or folder; name images, folders or a table of paths")
        if self.out is not None:
            check_new_file(Path(self.out), self.overwrite, (self.ckpt, *self.images))
        if self.cam is not None:
            check_new_folder(Path(self.cam))


@dataclass(frozen=True)
class ExportConfig:
    """Options of `export`."""

    ckpt: Trained
    out: Annotated[str, Option("file to write; FILE.json beside it says how images reach it", "files")]
    format: Annotated[
        Literal["state-dict", "safetensors", "torchscript", "torch-export", "onnx"],
        Option("weights alone (state-dict, safetensors), or weights with the computation", "output"),
    ] = "state-dict"
    arch: RepeatedArch = None
    overwrite: Annotated[bool, Option("replace the files of an earlier export", "files")] = False

    @property
    def described(self) -> Path:
        """The file that says how images reach the network."""
        return Path(f"{self.out}.json")

    def check(self) -> None:
        """Raise UserError for a target that cannot be written, or a format whose packages are missing."""
        for path in (Path(self.out), self.described):
            check_new_file(path, self.overwrite, (self.ckpt,))
        missing = [name for name in EXTRAS.get(self.format, ()) if find_spec(name) is None]
        if missing:
            raise UserError(f"--format {self.format}: needs `pip install {' '.join(missing)}`")
