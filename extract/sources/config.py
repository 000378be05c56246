"""Options that say what the images are."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from extract.sources.registry import (
    check_no_idle_options,
    find_source,
    idle_options,
    meant_source,
    source_names,
)
from store.options import Option


@dataclass(frozen=True)
class DatasetConfig:
    """Which images are used. It is saved in every checkpoint and store.

    Three fields are not options. Two are found when the images are first listed: `skipped`, the images,
    relative to root, that `skip_bad_images` left out; and `tail_order`, which says whether a long-tailed
    subset gives most images to the first class ("class index") or to the largest ("frequency"). `subfolders`
    says whether images in subfolders of a class count, and files that only their content shows to be images;
    they did not in version 0.1.
    """

    dataset: Annotated[
        str | None,
        Option(
            "where the images come from", "data", "imagefolder with --root, else digits", names=source_names
        ),
    ] = None
    root: Annotated[str | None, Option("folder of the images (digits needs none)", "data")] = None
    imbalance_factor: Annotated[
        float | None,
        Option(
            "use a long-tailed subset whose largest class has this many times the images of the smallest",
            "data",
            "all images",
        ),
    ] = None
    val_per_class: Annotated[
        int, Option("validation images to hold out of training, for each class", "data")
    ] = 0
    skip_bad_images: Annotated[
        bool, Option("leave out images that cannot be decoded, and list them", "data")
    ] = False
    skipped: tuple[str, ...] = ()
    download: Annotated[bool, Option("let torchvision download CIFAR into --root", "data")] = False
    subfolders: bool = True
    no_flip: Annotated[
        bool,
        Option(
            "do not mirror training images; for signs, text and others whose mirror image is of another "
            "class or of none",
            "augmentation",
        ),
    ] = False
    tail_order: Literal["class index", "frequency"] | None = None

    @property
    def source(self) -> str:
        """The source of the images; without a name, a root means class folders."""
        return self.dataset or meant_source(self.root)

    @property
    def mirrored(self) -> bool:
        """Whether half of the training images are mirrored."""
        return find_source(self.source).mirrored is not False and not self.no_flip

    def idle(self) -> list[str]:
        """Options that are set although the source does not take them."""
        return idle_options(self.source, self)

    def resolved(self) -> "DatasetConfig":
        """The same, with the source named.

        Raises:
            UserError: an unknown source, or an option that it does not take.
        """
        check_no_idle_options(self.source, self)
        return replace(self, dataset=self.source)
