"""Options of Phase I's commands: the one home of their defaults and meanings.

A field whose type is `Annotated` is an option of the command line, and the annotation its help. Nothing heavy
is imported here, so that `--help` answers at once.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from extract.device_names import refuse_unknown_device
from extract.sources.kinds import KINDS, REFUSALS
from extract.training.recipes import RECIPES
from store.errors import UserError, check_at_least

MapDtype = Annotated[
    Literal["float16", "float32", "bfloat16", "int8", "float8_e4m3"],
    "of the stored feature maps; int8 and float8_e4m3 are lossy",
]
Codec = Annotated[Literal["none", "zstd", "lz4"], "compression of the stored feature maps"]
ShotRule = Annotated[
    str, "what Many, Medium and Few mean: decoupling, oltr, or thresholds: 200,50 is Many > 200, Few < 50"
]
NViews = Annotated[
    int, "of each training image: the first as in evaluation, the others cropped and flipped as in training"
]


def check_shot_rule(rule: str) -> None:
    """Raise UserError for a shot rule that is no name and no thresholds."""
    from analysis.shots import bounds  # numpy, which --help does without

    try:
        bounds(rule)
    except ValueError as error:
        raise UserError(f"--shot-rule {rule}: {error}") from error


@dataclass(frozen=True)
class DatasetConfig:
    """What the images are. It travels in every checkpoint and store.

    Three fields are no options. Found out when the images are first listed: `skipped`, the images, relative
    to root, that `skip_bad_images` left out; and `tail_order`, by which a long-tailed subset gives most
    images to the first class ("class index") or to the largest ("frequency"). And `subfolders`: whether
    images in subfolders of a class count, and files whose content alone tells that they are images; they did
    not in version 0.1.
    """

    dataset: Annotated[
        Literal["digits", "cifar10", "cifar100", "imagefolder"] | None,
        "where images come from; imagefolder where --root is named, digits where it is not",
    ] = None
    root: Annotated[str | None, "folder of the images (none for digits)"] = None
    imbalance_factor: Annotated[
        float | None, "largest over smallest class of the long-tailed subset; all images without it"
    ] = None
    val_per_class: Annotated[int, "validation images a class, held out of training"] = 0
    skip_bad_images: Annotated[bool, "go on without images that cannot be decoded, and list them"] = False
    skipped: tuple[str, ...] = ()
    download: Annotated[bool, "let torchvision fetch CIFAR into --root"] = False
    subfolders: bool = True
    no_flip: Annotated[
        bool,
        "do not mirror training images: where a mirror image is of another class or of none (signs, text)",
    ] = False
    tail_order: Literal["class index", "frequency"] | None = None

    @property
    def source(self) -> str:
        """Where images come from: a root holds class folders, unless a data set is named."""
        return self.dataset or ("digits" if self.root is None else "imagefolder")

    @property
    def mirrored(self) -> bool:
        """Whether training mirrors half of the images."""
        return KINDS[self.source].mirrored is not False and not self.no_flip

    def idle(self) -> list[str]:
        """Options that are set, and that the source does not take."""
        return [
            name
            for name in REFUSALS
            if getattr(self, name) not in (None, False) and name not in KINDS[self.source].options
        ]

    def resolved(self) -> "DatasetConfig":
        """The same with the source named.

        Raises:
            UserError: an option that the source does not take.
        """
        for name in self.idle():
            raise UserError(REFUSALS[name].format(value=getattr(self, name), source=self.source))
        return replace(self, dataset=self.source)


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is. It travels in every checkpoint and store."""

    arch: Annotated[
        str,
        "small images: resnet20, 32, 44, 56, resnet18-cifar, resnet34-cifar; large: resnet18 to 152",
    ] = "resnet32"
    width: Annotated[int | None, "channels of the first stage of a network for small images"] = None
    weights: Annotated[str | None, "torchvision's pre-trained weights, DEFAULT say"] = None


@dataclass(frozen=True)
class TrainConfig:
    """Options of `train`, the network's and the data set's among them.

    None stands for what the recipe (or, for the image size, the architecture) says.
    """

    out: Annotated[str, "folder of the checkpoint and metrics"] = "runs/phase1"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    image_size: Annotated[int | None, "side of the images in pixels"] = None
    recipe: Annotated[
        Literal["short", "cosine", "cifar-lt", "inaturalist"], "preset of the options below it"
    ] = "short"
    epochs: Annotated[int | None, "passes over the training images"] = None
    batch_size: Annotated[int | None, "images a step"] = None
    lr: Annotated[float | None, "initial learning rate"] = None
    schedule: Annotated[Literal["step", "cosine"] | None, "course of the learning rate"] = None
    warmup_epochs: Annotated[int | None, "epochs of linear warm-up"] = None
    weight_decay: Annotated[float | None, "L2 penalty on all weights"] = None
    momentum: Annotated[float, "of SGD"] = 0.9
    precision: Annotated[Literal["fp32", "bf16"], "bf16 computes the features under autocast"] = "fp32"
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2
    eval_every: Annotated[int, "epochs between accuracies on val (or test)"] = 10
    seed: Annotated[int, "of the initial weights, the order and the augmentation"] = 0
    resume: Annotated[bool, "go on from the checkpoint in --out, with its options"] = False
    overwrite: Annotated[bool, "replace an earlier run in --out"] = False

    def resolved(self) -> "TrainConfig":
        """The same with values in place of None.

        Raises:
            UserError: a value out of its range.
        """
        recipe = RECIPES[self.recipe]
        names = ("epochs", "batch_size", "lr", "schedule", "warmup_epochs", "weight_decay")
        values = {n: getattr(recipe if getattr(self, n) is None else self, n) for n in names}
        config = replace(self, dataset=self.dataset.resolved(), **values)
        config.check_numbers()
        return config

    def check_numbers(self) -> None:
        """Raise UserError for a value out of its range; None passes."""
        check_at_least(self, epochs=1, batch_size=1, image_size=8, eval_every=1, workers=0, seed=0)
        check_at_least(self, lr=0, warmup_epochs=0, weight_decay=0, momentum=0)
        check_at_least(self.network, width=1)


@dataclass(frozen=True)
class ExtractConfig:
    """Options of `extract`."""

    ckpt: Annotated[str, "checkpoint that `train` wrote"]
    store: Annotated[str, "store to write: a path that ends in .zarr or .h5, or s3://bucket/name.zarr"] = (
        "feats.zarr"
    )
    root: Annotated[str | None, "where the images lie, if they moved since training"] = None
    views: NViews = 1
    dtype: MapDtype = "float16"
    codec: Codec = "none"
    precision: Annotated[Literal["fp32", "bf16"], "bf16 computes the features under autocast"] = "fp32"
    batch_size: Annotated[int, "images at a time"] = 128
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2
    resume: Annotated[bool, "go on with an extraction that was interrupted"] = False
    overwrite: Annotated[bool, "replace an existing store"] = False

    def check(self) -> None:
        """Raise UserError for a value out of its range."""
        check_at_least(self, batch_size=1, workers=0, views=1)


@dataclass(frozen=True)
class SampleConfig:
    """Options of `store verify` that have rows extracted anew."""

    sample: Annotated[int | None, "rows of each split to extract anew and compare; needs --ckpt"] = None
    ckpt: Annotated[str | None, "checkpoint that the store was extracted with"] = None
    root: Annotated[str | None, "where the images lie, if they moved since training"] = None
    seed: Annotated[int, "of the choice of rows"] = 0
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2

    def checked(self) -> "SampleConfig":
        """The same.

        Raises:
            UserError: a value out of its range, or one option without the other.
        """
        check_at_least(self, sample=1, seed=0, workers=0)
        refuse_unknown_device(self.device)
        if self.sample is not None and self.ckpt is None:
            raise UserError("--sample needs --ckpt, the checkpoint that the store was extracted with")
        if self.sample is None and (self.ckpt, self.root) != (None, None):
            raise UserError("--ckpt and --root are for --sample, the number of rows to extract anew; name it")
        return self


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `evaluate`."""

    ckpt: Annotated[str, "checkpoint that `train` or `finetune` wrote"]
    root: Annotated[str | None, "where the images lie, if they moved since training"] = None
    split: Annotated[Literal["train", "val", "test"], "images to evaluate on"] = "test"
    shot_rule: ShotRule = "decoupling"
    precision: Annotated[Literal["fp32", "bf16"], "bf16 computes the features under autocast"] = "fp32"
    batch_size: Annotated[int, "images at a time"] = 128
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2

    def check(self) -> None:
        """Raise UserError for a value out of its range."""
        check_at_least(self, batch_size=1, workers=0)
        check_shot_rule(self.shot_rule)


@dataclass(frozen=True)
class ForecastConfig:
    """Options of `store plan`. What the network and the images are, options say or a checkpoint."""

    ckpt: Annotated[str | None, "trained checkpoint; it says what network and images are"] = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    image_size: Annotated[int | None, "side of the images in pixels"] = None
    store: Annotated[str, "where the store is to lie, a path that ends in .zarr or .h5"] = "feats.zarr"
    views: NViews = 1
    dtype: MapDtype = "float16"
    codec: Codec = "none"
    precision: Annotated[Literal["fp32", "bf16"], "bf16 computes the features under autocast"] = "fp32"
    batch_size: Annotated[int, "images at a time"] = 128
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2
    iterations: Annotated[int, "SGD steps of fine-tuning"] = 6400
    seconds: Annotated[float, "for each thing that is measured"] = 2.0

    def check_numbers(self) -> None:
        """Raise UserError for a value out of its range; None passes."""
        check_at_least(self, image_size=8, batch_size=1, workers=0, iterations=1, seconds=0.01, views=1)
        check_at_least(self.network, width=1)
