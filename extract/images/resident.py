"""Images in memory, held on the GPU that goes through them again and again."""

from dataclasses import replace

import torch

from extract.images.image_set import ImageSet

SHARE = 0.25  # of a GPU's free memory; activations need the rest


def resident(split: ImageSet, device: torch.device) -> ImageSet:
    """The images on a GPU, so that batches are gathered there; as they are on a CPU, or if they do not fit.

    Args:
        split: images as files stay files.
        device: that trains.
    """
    if device.type != "cuda" or not split.in_memory or split.images.device == device:
        return split
    free, _ = torch.cuda.mem_get_info(device)
    return replace(split, images=split.images.to(device)) if split.images.nbytes <= SHARE * free else split
