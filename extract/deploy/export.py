"""A trained network in a file that other programs read, in the names that its authors gave its tensors.

Every file is read back before it appears, and must give the checkpoint's logits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from extract.checkpoints.checkpoint import described, load_checkpoint
from extract.checkpoints.restore import restore_network
from extract.deploy.config import ExportConfig
from extract.deploy.formats import FORMATS, Format, Logits
from extract.deploy.preprocessing import preprocessing
from extract.device import make_deterministic
from extract.heads.in_network import HeadModule
from extract.images.transforms import Transform
from extract.networks.found import FoundNetwork
from extract.networks.parts import Network
from extract.training.interrupted.unfinished import note_stopped_early
from store.errors import UserError
from store.notes import note
from store.storage.atomic import whole_file, write_json

BATCH_SIZE = 2  # of the images that a computation is recorded with
OTHER_SIZES = (1, 3)  # of batches that it must compute too
TOLERANCE = 1e-4  # of the largest logit: other programs add in another order, and fold norms into weights


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        file: the network.
        described: FILE.json, which says how images reach it.
        difference: of its logits from the checkpoint's on random images, in units of the largest.
    """

    file: Path
    described: Path
    difference: float


@torch.no_grad()
def export(config: ExportConfig) -> Export:
    """Write a checkpoint's network, with the FC layer that Phase II left, for programs other than this one.

    Raises:
        UserError: the checkpoint or the target cannot be used, or the network cannot be had in this format.
    """
    config.check()
    make_deterministic()
    path = Path(config.ckpt)
    checkpoint = load_checkpoint(path)
    network = restore_network(checkpoint, path, config.arch)
    note_stopped_early(checkpoint, path)
    size = described(Transform, checkpoint.transform, path).image_size
    how, file_format = preprocessing(checkpoint, path), FORMATS[config.format]
    _check_head(network, config)
    with whole_file(Path(config.out)) as unfinished:
        original = network.original().eval()
        batches = _random_batches(file_format, size)
        try:
            unfinished.write_bytes(file_format.make(original, batches[0], json.dumps(how)))
            read_back = file_format.read(unfinished, original)
            difference = max(_difference(read_back, network, images) for images in batches)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # recorders of networks of any make can fail in any way
            raise _not_exportable(config.format, how["network"]["arch"], error) from error
        _check_same(difference, config.format, how["network"]["arch"])
        write_json(config.described, how)
    if not file_format.computes:
        _note_new_bias(network, Path(config.out))
    return Export(Path(config.out), config.described, difference)


def _check_head(network: Network, config: ExportConfig) -> None:
    """Raise UserError if weights alone would not say what the head computes."""
    if isinstance(network.classifier, HeadModule) and not FORMATS[config.format].computes:
        whole = ", ".join(name for name, one in FORMATS.items() if one.computes)
        raise UserError(
            f"--format {config.format}: the head of {config.ckpt} is not one FC layer but "
            f"{network.classifier.kind}, which weights alone do not say; use a format that holds the "
            f"computation ({whole})"
        )


def _note_new_bias(network: Network, out: Path) -> None:
    """Say where the authors' own network would not load the weights, for its FC layer has no bias."""
    if not isinstance(network, FoundNetwork) or network.had_bias:
        return
    name, layer = network.classifier_name, network.classifier
    sizes = f"{layer.in_features}, {layer.out_features}"
    own = f"Conv2d({sizes}, 1)" if network.convolves else f"Linear({sizes})"
    note(
        f"{out}: holds {name}.bias, a bias of the FC layer that the authors' network lacks; before loading, "
        f"give it one: network.set_submodule({name!r}, torch.nn.{own})"
    )


def _random_batches(file_format: Format, size: int) -> list[torch.Tensor]:
    """Images (B, 3, size, size) of all batch sizes that are compared; from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    sizes = (BATCH_SIZE, *(OTHER_SIZES if file_format.computes else ()))
    return [torch.randn(n, 3, size, size, generator=generator) for n in sizes]


def _difference(read_back: Logits, network: Network, images: torch.Tensor) -> float:
    """The largest difference of logits, in units of the largest."""
    expected = network(images)
    found = read_back(images)
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _check_same(difference: float, name: str, arch: str) -> None:
    if not difference <= TOLERANCE:
        raise UserError(
            f"--format {name}: read back, {arch} gives other logits than the checkpoint ({difference:.1e} of "
            f"the largest apart, {TOLERANCE:.0e} at most); export it as another format"
        )


def _not_exportable(name: str, arch: str, error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0][:150]}" if lines else type(error).__name__
    others = ", ".join(other for other in FORMATS if other != name)
    return UserError(
        f"--format {name}: {arch} cannot be exported so ({reason}); try another format ({others})"
    )
