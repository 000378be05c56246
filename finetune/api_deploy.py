"""`predict` and `export` of `import tailcache`."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from extract.deploy.config import ExportConfig, PredictConfig
from extract.deploy.export import export as run_export
from extract.deploy.predict import predict as run_predict
from finetune.calls import Place, computing, path_text
from finetune.commands import early
from finetune.commands.failures import as_user_errors
from finetune.keywords import checked_options


@as_user_errors()
def predict(
    ckpt: Place, images: Place | Iterable[Place], *, progress: bool = False, **options: Any
) -> pd.DataFrame:
    """The likeliest classes of images of your own, read and prepared as in evaluation.

    Args:
        ckpt: checkpoint that `train` or `finetune` wrote.
        images: an image file, a folder, a table with a column of paths, or several of these.
        progress: show a bar on stderr.
        options: options of `tailcache predict`, such as top=3 or cam="maps"; out= writes the CSV file too.

    Returns:
        A row for each image: path, class_1, probability_1, … class_k, probability_k.

    Raises:
        UserError: the checkpoint, an image, an option or a target cannot be used.
    """
    several = [images] if isinstance(images, str | PathLike) else list(images)
    named = checked_options(PredictConfig, "predict", options | {"ckpt": ckpt})
    config = PredictConfig(tuple(map(path_text, several)), **named)
    early.check_prediction(config)
    with computing(progress) as bar:
        return run_predict(config, bar)


@as_user_errors()
def export(ckpt: Place, out: Place, **options: Any) -> Path:
    """Write a trained network for other programs, in its authors' own names, and FILE.json beside it.

    Args:
        ckpt: checkpoint that `train` or `finetune` wrote.
        out: file to write.
        options: options of `tailcache export`, such as format="onnx".

    Returns:
        The file.

    Raises:
        UserError: the checkpoint, an option or the target cannot be used, or the network cannot be exported
            in this format.
    """
    named = checked_options(ExportConfig, "export", options | {"ckpt": ckpt, "out": out})
    config = ExportConfig(**named)
    early.check_export(config)
    with computing(False):
        return run_export(config).file
