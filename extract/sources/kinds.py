"""What the program knows of each source of images before it opens it: its options, and mirroring.

Nothing heavy is imported here, so that an option that is wrong is refused at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        options: of DatasetConfig, those that not every source takes.
        mirrored: whether a mirror image is one more image of the same class; None where that is known to
            the user alone.
    """

    options: tuple[str, ...]
    mirrored: bool | None


KINDS = {
    "digits": SourceKind((), mirrored=False),
    "cifar10": SourceKind(("root", "download", "no_flip"), mirrored=True),
    "cifar100": SourceKind(("root", "download", "no_flip"), mirrored=True),
    "imagefolder": SourceKind(("root", "skip_bad_images", "no_flip"), mirrored=None),
}
REFUSALS = {  # by the option that a source does not take
    "root": "--root {value}: {source} is embedded and has no folder; leave out --root, or name another "
    "--dataset (imagefolder is what --root alone means)",
    "download": "--download: fetches CIFAR alone, and {source} is not; leave it out, or name --dataset "
    "cifar10 or cifar100",
    "skip_bad_images": "--skip-bad-images: is for image files in class folders, and {source} has none; "
    "leave it out",
    "no_flip": "--no-flip: {source} is never mirrored; leave it out",
}
