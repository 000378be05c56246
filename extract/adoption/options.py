"""Which options of `extract` go together: a checkpoint of ours, or another program's network and its images.

Nothing heavy is imported here, so that a wrong option fails at once.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from extract.config import DatasetConfig, ExtractConfig, NetworkConfig
from extract.networks.factory import is_factory
from extract.networks.registry import check_named_network, check_weights
from extract.sources.presence import check_checkpoint_exists, check_images_exist
from extract.training.interrupted.how_far import is_marked
from store.errors import CheckpointError, UserError
from store.options import flag

PREPARATION = ("image_size", "mean", "std", "crop", "interpolation")
BESIDE_OURS = {"arch", "root"}  # the user's own code again, and where the images are now
TO_TYPE = "--arch resnet50 --root photos"


def named_options(config: ExtractConfig) -> dict[str, Any]:
    """The options that say what network and images are, and differ from their defaults."""
    own = {name: getattr(config, name) for name in (*PREPARATION, "classifier")}
    found = {name: value for name, value in own.items() if value is not None}
    found |= {"seed": config.seed} if config.seed != ExtractConfig.seed else {}
    for part, default in ((config.network, NetworkConfig(arch=None)), (config.dataset, DatasetConfig())):
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        found |= {name: value for name, value in values.items() if value != getattr(default, name)}
    return found


def is_adoption(config: ExtractConfig) -> bool:
    """Whether network and images come from options; if not, from a checkpoint of ours."""
    return config.ckpt is None or (not is_marked(Path(config.ckpt)) and bool(named_options(config)))


def takes_classifier(config: ExtractConfig) -> bool:
    """Whether another program's file has the FC layer too."""
    return config.ckpt is not None and config.classifier in (None, "checkpoint")


def check_phase1_options(config: ExtractConfig) -> None:
    """Raise UserError for options that do not go together, or lack what they need."""
    fitted = config.classifier == "fit"
    if config.ckpt is None and config.classifier == "fresh":
        raise UserError("--classifier fresh: needs --ckpt, the file of a network; `fit` goes without one")
    if config.ckpt is None and not fitted:
        raise UserError(
            "extract: --ckpt names no checkpoint; pass one that `train` wrote, or another program's weights "
            f"with their network and the images of their classes (--ckpt resnet50.pth {TO_TYPE}), or fit a "
            f"classifier to a pre-trained network (--classifier fit --weights DEFAULT {TO_TYPE})"
        )
    if config.weight_decay is not None and not fitted:
        raise UserError(
            f"--weight-decay {config.weight_decay:g}: is that of a classifier that is fitted; leave it out, "
            "or pass --classifier fit"
        )
    if config.ckpt is not None:
        check_checkpoint_exists(Path(config.ckpt))
    if is_adoption(config):
        _check_adoption(config)
        return
    beside = [name for name in named_options(config) if name not in BESIDE_OURS]
    if fitted and is_marked(Path(config.ckpt)):
        raise UserError(
            f"--classifier fit: {config.ckpt} is a checkpoint of this program, which has one; leave out "
            "--classifier"
        )
    if beside and is_marked(Path(config.ckpt)):
        option = flag(beside[0])
        raise UserError(
            f"{option}: {config.ckpt} is a checkpoint of this program, which determines network and images; "
            f"leave out {option}"
        )


def foreign(error: CheckpointError) -> CheckpointError:
    """The error for a file that is no checkpoint of ours, with what to do if another program wrote it."""
    return CheckpointError(f"{error}; for that, name network and images as well ({TO_TYPE})")


def _check_adoption(config: ExtractConfig) -> None:
    what = f"{config.ckpt}: not a checkpoint of this program, so its"
    if config.ckpt is None:
        what = "--classifier fit: fits to images a network that is pre-trained; the"
    if config.network.arch is None:
        raise UserError(
            f"{what} network must be named with --arch (resnet50, timm:NAME, package.module:function)"
        )
    if config.ckpt is None:
        _check_pretrained(config.network)
        check_weights(config.network)
    elif config.network.weights is not None:
        raise UserError(
            f"--weights {config.network.weights}: --ckpt names the weights already; leave out one of the two"
        )
    if (config.dataset.dataset, config.dataset.root, config.dataset.train) == (None, None, None):
        raise UserError(f"{what} images must be named: --root FOLDER, --train TABLE or --dataset NAME")
    check_named_network(config.network)
    check_images_exist(config.dataset.resolved())


def _check_pretrained(network: NetworkConfig) -> None:
    """Raise UserError for random weights; a function of the user's may return weights of its own."""
    if network.weights is None and not is_factory(network.arch):
        raise UserError(
            f"--classifier fit: {network.arch} has random weights, so its features say little of an image; "
            "name weights with --weights (DEFAULT, or a file), or with --ckpt"
        )
