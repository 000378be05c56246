"""A store's classifier, fitted once its pooled features are there, and the class activation maps of it.

In an order that a kill anywhere leaves something to go on from: the fit, and with it the digest of the
checkpoint that will hold it; the maps; the checkpoint itself.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from analysis.joined import joined
from extract.cam import class_activation_maps
from extract.checkpoints.checkpoint import as_bytes, file_digest, load_checkpoint
from extract.checkpoints.restore import Restored
from extract.classifier.fitting import Pooled, check_choosable, fit_classifier
from extract.classifier.folds import images_of
from extract.images.image_set import ImageSet
from extract.networks.parts import Network
from store.arrays.dtypes import decode
from store.arrays.image_names import DIGEST, GROUP
from store.errors import StoreError
from store.notes import note
from store.reader import FeatureStore
from store.schema import CLASSIFIER, SCALE, SCALED
from store.storage.atomic import whole_file
from store.writer import StoreWriter

PENDING = "0" * 64  # in place of the checkpoint's SHA-256 until it is known
ROOM = {"reserved": " " * 4096}  # in the provenance, for what is recorded of the fit
AT_ONCE = 256  # maps, in float32


def is_fitted(restored: Restored) -> bool:
    """Whether the classifier of an extraction is fitted on its features."""
    return restored.checkpoint.config.get("classifier") == "fit"


def check_fittable(images: ImageSet, has_val: bool, weight_decay: float | None) -> None:
    """Raise UserError if a weight decay has to be chosen, and the training images do not allow it.

    Args:
        images: those of the train split.
        has_val: whether there is a validation split.
        weight_decay: the one that is given, or None.
    """
    known = [of for of in (images.digest, images.group) if of is not None]
    check_choosable(images.label, joined(np.arange(len(images)), *known), has_val, weight_decay)


def backbone_digest(network: Network) -> str:
    """SHA-256 of all tensors of a network but its FC layer: what features depend on."""
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("classifier."):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fit_in_store(
    writer: StoreWriter, held: Path, weight_decay: float | None, device: torch.device, progress: Progress
) -> None:
    """Write classifier and class activation maps into a store that has all else, and the checkpoint.

    What an earlier attempt wrote is read back, and not fitted again.

    Args:
        writer: of the store.
        held: the file of the checkpoint, until now with an FC layer that was not fitted.
        weight_decay: of the fit; None to choose it.
        device: where to compute.
        progress: shows both.

    Raises:
        UserError: the draft is damaged, or there is nothing to choose a weight decay on.
    """
    if not writer.has_classifier:
        pooled = _pooled(writer)
        fitted = fit_classifier(pooled, weight_decay, device, progress)
        _tell(fitted.record)
        layer = {"weight": fitted.weight, "bias": fitted.bias}
        made = {name: value for name, value in writer.provenance.items() if name not in ROOM}
        digest = sha256(_with_layer(held, layer, fitted.record)).hexdigest()
        made |= {"checkpoint": made["checkpoint"] | {"sha256": digest}, "classifier": fitted.record}
        writer.write_classifier({f"classifier/{name}": layer[name] for name in CLASSIFIER}, made)
    if writer.missing_cams():
        _write_cams(writer, device, progress)
    layer = {name: writer.read_block(f"classifier/{name}", 0) for name in CLASSIFIER}
    _put_checkpoint(held, writer.provenance, layer)


def _pooled(writer: StoreWriter) -> Pooled:
    """The features of a draft."""
    read = {
        (split, name): np.concatenate([*writer.read_back(f"{split}/{name}")])
        for split in writer.splits
        if split != "test"
        for name in ("pooled", "label", "view")
    }
    val = (read["val", "pooled"], read["val", "label"]) if "val" in writer.splits else None
    view = read["train", "view"]
    known = [path for name in (DIGEST, GROUP) if (path := f"train/{name}") in writer.paths]
    together = joined(images_of(view), *(writer.read_block(path, 0) for path in known))
    return Pooled(read["train", "pooled"], read["train", "label"], view, together, val, writer.n_classes)


def _tell(record: dict[str, Any]) -> None:
    decay = f"weight decay {record['weight_decay']:g}"
    if record["scores"]:
        best = next(of for of in record["scores"] if of["weight_decay"] == record["weight_decay"])
        share = f"{100 * best['accuracy']:.1f} % of {record['n_scored']:,} rows"
        decay += (
            f", chosen on {record['chosen_on']} among {len(record['scores'])} (log-loss "
            f"{best['log_loss']:.3f}, accuracy {share})"
        )
    note(f"classifier: logistic regression on {record['n_rows']:,} rows, {decay}")


def _with_layer(held: Path, layer: dict[str, np.ndarray], record: dict[str, Any]) -> bytes:
    """The checkpoint with a fitted FC layer.

    It is made from the file, by the process that wrote it too: whoever makes it makes the same bytes.
    """
    checkpoint = load_checkpoint(held)
    fitted = {f"classifier.{name}": torch.from_numpy(np.array(layer[name])) for name in CLASSIFIER}
    return as_bytes(replace(checkpoint, state=checkpoint.state | fitted, fit=record))


def _write_cams(writer: StoreWriter, device: torch.device, progress: Progress) -> None:
    """Write the missing class activation maps, from the stored feature maps."""
    label = torch.from_numpy(writer.read_block("train/label", 0).copy()).long()
    weight = torch.from_numpy(writer.read_block("classifier/weight", 0).copy()).to(device)
    n_rows = len(writer.read_block("train/feature_map", 0))  # of every block but the last
    missing = writer.missing_cams()
    task = progress.add_task("class activation maps", total=len(missing), status="")
    for block in missing:
        codes = writer.read_block("train/feature_map", block)
        scale = writer.read_block(f"train/{SCALE}", block) if writer.map_dtype in SCALED else None
        cams = []
        for first in range(0, len(codes), AT_ONCE):
            part = codes[first : first + AT_ONCE]
            maps = torch.from_numpy(np.array(decode(part, writer.map_dtype, scale, np.dtype(np.float32))))
            at = block * n_rows + first
            of_maps = label[at : at + len(part)]
            cams.append(class_activation_maps(maps.to(device), weight, of_maps.to(device)).cpu().numpy())
        writer.write_cams(block, np.concatenate(cams))
        progress.advance(task)


def put_checkpoint(store: FeatureStore, held: Path) -> None:
    """Give a checkpoint's file the FC layer of its complete store, if it was lost.

    Raises:
        StoreError: it is another checkpoint than the store's.
    """
    _put_checkpoint(held, store.provenance, dict(zip(CLASSIFIER, store.classifier, strict=True)))


def _put_checkpoint(held: Path, provenance: dict[str, Any], layer: dict[str, np.ndarray]) -> None:
    """Give the checkpoint's file the fitted FC layer, unless an earlier attempt did."""
    recorded = provenance["checkpoint"]["sha256"]
    if file_digest(held) == recorded:
        return
    content = _with_layer(held, layer, provenance["classifier"])
    if sha256(content).hexdigest() != recorded:
        raise StoreError(
            f"{held}: is another checkpoint than the one that this store was begun with; pass --overwrite to "
            "start over"
        )
    with whole_file(held) as unfinished:
        unfinished.write_bytes(content)
