"""Class activation maps (paper, eq. 1): where in an image the evidence for its class is."""

import torch

ROUNDING = 1e-6


def class_activation_maps(
    feature_map: torch.Tensor, weight: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    """The true class's activation at every position, min-max normalised for each image.

    cam[b, h, w] = Σ_c weight[label[b], c] · feature_map[b, h, w, c]: no ReLU and no bias, since neither
    survives the normalisation to [0, 1] as evidence. A constant map, which singles out no position,
    becomes 0 everywhere; so does one that is constant up to float32 rounding.

    Args:
        feature_map: (B, H, W, C).
        weight: (K, C), the FC layer's.
        label: (B,) int64.

    Returns:
        (B, H, W) float32 in [0, 1]; exactly 0 at each image's minimum and 1 at its maximum.
    """
    feature_map, weight = feature_map.float(), weight.float()[label]
    cam = torch.einsum("bhwc,bc->bhw", feature_map, weight)
    lowest = cam.amin(dim=(1, 2), keepdim=True)
    span = cam.amax(dim=(1, 2), keepdim=True) - lowest
    # The sums of equal positions may differ in their last bits, by less than ROUNDING · |w| |f|.
    longest = feature_map.norm(dim=3).amax(dim=(1, 2)) * weight.norm(dim=1)
    is_constant = span <= ROUNDING * longest[:, None, None]
    return torch.where(is_constant, 0, (cam - lowest) / torch.where(is_constant, 1, span))
