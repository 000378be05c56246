"""How images reach an exported network, for programs that know nothing of this one."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from extract.checkpoints.checkpoint import Checkpoint, described, file_digest
from extract.images.transforms import Transform, evaluation_resize
from extract.networks.config import NetworkConfig


def preprocessing(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """What FILE.json beside an exported network says, ready for JSON.

    Args:
        checkpoint: the network's.
        path: of the checkpoint's file.
    """
    transform = described(Transform, checkpoint.transform, path)
    shorter_side, interpolation = evaluation_resize(transform)
    size = transform.image_size
    return {
        "input": f"float32 (B, 3, {size}, {size}), RGB",
        "turn_as_exif_says": transform.upright,
        "resize_shorter_side": shorter_side,
        "interpolation": interpolation,
        "antialias": True,
        "center_crop": size,
        "scale": "pixels divided by 255",
        "mean": list(transform.mean),
        "std": list(transform.std),
        "white_of_16_bits": transform.white and {str(bits): v for bits, v in transform.white.items()},
        "output": f"logits, float32 (B, {len(checkpoint.class_names)})",
        "class_names": checkpoint.class_names,
        "network": asdict(described(NetworkConfig, checkpoint.network, path)),
        "checkpoint": {"path": str(path), "sha256": file_digest(path), "finetuned": checkpoint.finetuned},
    }
