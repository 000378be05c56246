"""Options of Phase I's augmentation."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from store.errors import UserError
from store.options import Option

LARGEST_ALPHA = 100  # of a Beta distribution; beyond it every share is a half


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are changed at random, besides crops and mirror images.

    None is the recipe's value; where it has none, 0, which means never.
    """

    augment: Annotated[
        Literal["none", "autoaugment", "randaugment", "trivialaugment"] | None,
        Option(
            "operations on colours and shape that each image goes through, drawn by this policy",
            "augmentation",
            "the recipe's, else none",
        ),
    ] = None
    cutout: Annotated[
        int | None,
        Option(
            "side in pixels of a square of the mean colour that covers a part of each image (Cutout)",
            "augmentation",
            "the recipe's, else 0: none",
            least=0,
        ),
    ] = None
    erasing: Annotated[
        float | None,
        Option(
            "probability that a box of 2 to 33 % of an image is covered with the mean colour",
            "augmentation",
            "the recipe's, else 0",
            least=0,
            most=1,
        ),
    ] = None
    jitter: Annotated[
        float | None,
        Option(
            "how far brightness, contrast and saturation change: each times a factor from 1 − X to 1 + X",
            "augmentation",
            "the recipe's, else 0",
            least=0,
            most=1,
        ),
    ] = None
    mixup: Annotated[
        float | None,
        Option(
            "α of mixup: each image becomes the mean of two, weighted by a share from Beta(α, α)",
            "augmentation",
            "the recipe's, else 0: none",
            least=0,
            most=LARGEST_ALPHA,
        ),
    ] = None
    cutmix: Annotated[
        float | None,
        Option(
            "α of CutMix: a box of another image, of a share of the area from Beta(α, α), is put into each",
            "augmentation",
            "the recipe's, else 0: none",
            least=0,
            most=LARGEST_ALPHA,
        ),
    ] = None
    mixup_features: Annotated[
        float | None,
        Option(
            "α of mixup of pooled features, in front of the FC layer, instead of images",
            "augmentation",
            "the recipe's, else 0: none",
            least=0,
            most=LARGEST_ALPHA,
        ),
    ] = None
    remix: Annotated[
        bool | None,
        Option(
            "a mixed image has the label of the rarer class alone if that is more than half of it, and the "
            "other class has at least three times the training images (Remix)",
            "augmentation",
            "the recipe's, else no",
        ),
    ] = None

    @property
    def mixes(self) -> bool:
        """Whether images or features of two labels are mixed."""
        return bool(self.mixup or self.cutmix or self.mixup_features)

    def changes(self) -> dict[str, Any]:
        """What is changed of single images, as fields of Transform; what is not is left out."""
        asked = {name: getattr(self, name) for name in ("augment", "jitter", "cutout", "erasing")}
        return {name: value for name, value in asked.items() if value}

    def check_fits(self, image_size: int | None) -> None:
        """Raise UserError for a square that is larger than images of this side; None passes."""
        if self.cutout and image_size is not None and self.cutout > image_size:
            raise UserError(
                f"--cutout {self.cutout}: larger than the images of {image_size} pixels; half their side is "
                "usual"
            )

    def check(self) -> None:
        """Raise UserError for options that mean nothing together; None passes."""
        if self.mixup_features and (self.mixup or self.cutmix):
            other = "mixup" if self.mixup else "cutmix"
            raise UserError(
                f"--mixup-features {self.mixup_features:g}: mixes features instead of images; leave "
                f"--{other} out (0 if the recipe has it)"
            )
        if self.remix and not self.mixes:
            raise UserError(
                "--remix: decides the labels of mixed images, and none are; pass --mixup, --cutmix or "
                "--mixup-features too"
            )
