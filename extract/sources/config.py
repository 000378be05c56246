"""Options that say what the images are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from extract.sources.registry import (
    check_no_idle_options,
    find_source,
    idle_options,
    meant_source,
    source_names,
)
from store.errors import UserError
from store.options import Option, check_bounds

FILES = ("train", "val", "test", "class_names")  # options that name files


@dataclass(frozen=True)
class DatasetConfig:
    """Which images are used. It is saved in every checkpoint and store.

    Six fields are not options. Three are found when the images are first listed: `skipped`, the images,
    relative to root, that `skip_bad_images` left out; `class_order`, the names of the classes in the order
    that `class_names` or another program's checkpoint has, None for the source's own; and `tail_order`, which
    says whether a long-tailed subset gives most images to the first class ("class index") or to the largest
    ("frequency"). `subfolders` says whether images in subfolders of a class count, and files that only their
    content shows to be images;
    they did not in version 0.1. `split_spellings` says whether folders of splits may be called otherwise than
    train, val and test (`held_out.SPELLINGS`); in older descriptions they may not. `moved_from` is the root
    at the time of training, with which absolute paths in tables begin, if the images have moved since.
    """

    dataset: Annotated[
        str | None,
        Option(
            "where the images come from",
            "data",
            "table with --train, imagefolder with --root, else digits",
            names=source_names,
        ),
    ] = None
    root: Annotated[
        str | None, Option("folder of the images (digits needs none)", "data", "a table's folder")
    ] = None
    train: Annotated[
        str | None,
        Option(
            "table (CSV, TSV, Parquet) with path, class and, if it has all images, split of each; or a list, "
            "iNaturalist's JSON, or Parquet files with images (one, a quoted pattern, or a folder)",
            "data",
            "none",
        ),
    ] = None
    val: Annotated[str | None, Option("table of validation images", "data", "none")] = None
    test: Annotated[str | None, Option("table of test images", "data", "none")] = None
    path_column: Annotated[
        str | None, Option("column of a table with paths, relative to --root", "data", "the obvious one")
    ] = None
    label_column: Annotated[
        str | None, Option("column of a table with names or numbers of classes", "data", "the obvious one")
    ] = None
    split_column: Annotated[
        str | None, Option("column of a table with train, val or test", "data", "the obvious one, if any")
    ] = None
    class_names: Annotated[
        str | None,
        Option(
            "file with the name of a class in each line, in the order of their numbers, which are the FC "
            "layer's outputs; or iNaturalist's categories.json",
            "data",
            "none",
        ),
    ] = None
    class_order: tuple[str, ...] | None = None
    imbalance_factor: Annotated[
        float | None,
        Option(
            "use a long-tailed subset whose largest class has this many times the images of the smallest",
            "data",
            "all images",
        ),
    ] = None
    subset_seed: Annotated[
        int,
        Option(
            "random seed of which images the long-tailed subset keeps; 0 is the published protocol's",
            "data",
            least=0,
        ),
    ] = 0
    val_per_class: Annotated[
        int, Option("validation images to hold out of training, for each class", "data")
    ] = 0
    val_fraction: Annotated[
        float | None,
        Option("share of every class's training images to hold out for validation", "data", "none"),
    ] = None
    test_fraction: Annotated[
        float | None,
        Option("share of every class's images to hold out for testing", "data", "none"),
    ] = None
    group_column: Annotated[
        str | None,
        Option(
            "column of a table that says which images belong together (frames of a track, pictures of a "
            "patient): they stay in one split",
            "data",
            "none",
        ),
    ] = None
    group_regex: Annotated[
        str | None,
        Option(
            "regular expression that finds in an image's path below the root what it shares with images that "
            "belong together: its first group, else the whole match",
            "data",
            "none",
        ),
    ] = None
    skip_bad_images: Annotated[
        bool, Option("leave out images that cannot be decoded, and list them", "data")
    ] = False
    skipped: tuple[str, ...] = ()
    download: Annotated[bool, Option("let torchvision download CIFAR into --root", "data")] = False
    subfolders: bool = True
    split_spellings: bool = True
    moved_from: str | None = None
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
        """The source of the images; without a name, a table means tables and a root means class folders."""
        return self.dataset or meant_source(self.root, self.train)

    @property
    def mirrored(self) -> bool:
        """Whether half of the training images are mirrored."""
        return find_source(self.source).mirrored is not False and not self.no_flip

    def with_absolute_files(self) -> "DatasetConfig":
        """The same, with files that are found from any working directory."""
        files = {name: getattr(self, name) for name in FILES}
        # Not the file itself: it may be a link in the folder of the images.
        there = {name: Path(file).parent.resolve() / Path(file).name for name, file in files.items() if file}
        return replace(self, **{name: str(file) for name, file in there.items()})

    def moved(self, root: str) -> "DatasetConfig":
        """The same, with images that are now below another root, and the files that moved with them."""
        now = {}
        for name in FILES:
            file = getattr(self, name)
            if file is not None and self.root is not None and Path(file).is_relative_to(self.root):
                there = Path(root) / Path(file).relative_to(self.root)
                if there.exists() or not Path(file).exists():
                    now[name] = str(there)
        return replace(self, root=root, moved_from=self.moved_from or self.root, **now)

    def idle(self) -> list[str]:
        """Options that are set although the source does not take them."""
        return idle_options(self.source, self)

    def resolved(self) -> "DatasetConfig":
        """The same, with the source named.

        Raises:
            UserError: an unknown source, an option that it does not take, or a seed of no subset.
        """
        check_no_idle_options(self.source, self)
        check_bounds(self)
        if self.subset_seed and self.imbalance_factor is None:
            raise UserError(
                f"--subset-seed {self.subset_seed}: chooses the images of a long-tailed subset, but there is "
                "none; add --imbalance-factor, or leave it out (--seed is that of the training)"
            )
        return replace(self, dataset=self.source)
