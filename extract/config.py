"""Options of Phase I's commands: the only place for their defaults and help.

A field whose type is `Annotated` is an option of the command line, which the annotation describes. Nothing
heavy is imported here, so that `--help` answers at once.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from extract.device_names import check_device
from extract.images.augmentation.config import AugmentConfig
from extract.images.preparation import check_preparation
from extract.inner_layers.options import layer_dtypes, named_layers
from extract.networks.config import NetworkConfig
from extract.options import (
    Codec,
    Crop,
    Device,
    ImagesAtOnce,
    ImageSize,
    Interpolation,
    LayerDtypes,
    Layers,
    MapDtype,
    Mean,
    MovedRoot,
    NViews,
    Precision,
    RepeatedArch,
    ShareOfStore,
    ShotRule,
    Std,
    Workers,
    check_shot_rule,
)
from extract.sources.config import DatasetConfig
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig
from extract.training.recipes import RECIPES, RECIPES_TOLD
from store.errors import UserError
from store.options import Option, check_bounds

FILLED_BY_RECIPES = ("objective", "augmentation", "optimisation")  # nested configs


@dataclass(frozen=True)
class TrainConfig:
    """Options of `train`, including those of the network and the data set.

    None means the recipe's value or, for the image size, the architecture's.
    """

    out: Annotated[str, Option("folder for the checkpoint and the metrics", "files")] = "runs/phase1"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    objective: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    image_size: ImageSize = None
    recipe: Annotated[
        Literal[
            "short",
            "cosine",
            "cifar-lt",
            "imagenet-lt",
            "places-lt",
            "inaturalist",
            "strong",
            "strong-200",
        ],
        Option(f"preset of Phase I; options that you name win ({RECIPES_TOLD})", "schedule"),
    ] = "short"
    sampler: Annotated[
        Literal["instance", "class-balanced", "square-root", "progressive"],
        Option(
            "how often an epoch shows each class: by its images (instance), all alike (class-balanced), by "
            "the square root of its images, or from the first to the second (progressive)",
            "method",
        ),
    ] = "instance"
    mean: Mean = None
    std: Std = None
    crop: Crop = None
    interpolation: Interpolation = None
    epochs: Annotated[
        int | None, Option("passes over the training images", "schedule", "the recipe's", least=1)
    ] = None
    batch_size: Annotated[
        int | None,
        Option("training images in a batch, of all processes together", "schedule", "the recipe's", least=1),
    ] = None
    lr: Annotated[
        float | None,
        Option(
            "learning rate that the schedule starts from, or rises to", "schedule", "the recipe's", least=0
        ),
    ] = None
    schedule: Annotated[
        Literal["step", "cosine", "one-cycle"] | None,
        Option("schedule of the learning rate", "schedule", "the recipe's"),
    ] = None
    warmup_epochs: Annotated[
        int | None,
        Option("epochs of linear warm-up of the learning rate", "schedule", "the recipe's", least=0),
    ] = None
    weight_decay: Annotated[
        float | None, Option("L2 penalty (weight decay) on all weights", "schedule", "the recipe's", least=0)
    ] = None
    momentum: Annotated[float, Option("SGD momentum", "schedule", least=0, below=1)] = 0.9
    optimisation: OptimConfig = field(default_factory=OptimConfig)
    precision: Precision = "fp32"
    device: Device = "auto"
    workers: Workers = 2
    eval_every: Annotated[
        int,
        Option(
            "epochs between accuracies on the validation split (else the test split)", "schedule", least=1
        ),
    ] = 10
    seed: Annotated[int, Option("random seed of weights, order and augmentation", "schedule", least=0)] = 0
    resume: Annotated[bool, Option("resume the run in --out, with its options", "files")] = False
    overwrite: Annotated[bool, Option("replace an earlier run in --out", "files")] = False

    def resolved(self) -> "TrainConfig":
        """The same, with every None replaced, but for lengths that go with an image size of None.

        Raises:
            UserError: a value out of its range.
        """
        check_bounds(self, "image_size")  # the recipe computes with it
        recipe = RECIPES[self.recipe]
        names = ("epochs", "batch_size", "lr", "schedule", "warmup_epochs", "weight_decay")
        values = {n: getattr(recipe if getattr(self, n) is None else self, n) for n in names}
        if values["schedule"] == "one-cycle" and self.warmup_epochs is None:
            values["warmup_epochs"] = 0
        # A learning rate that the user names is for the user's batches.
        but = () if self.lr is None else ("lr_batch_size",)
        nested = {name: recipe.fill(getattr(self, name), self.image_size, but) for name in FILLED_BY_RECIPES}
        nested["objective"] = nested["objective"].resolved(values["epochs"])
        config = replace(self, dataset=self.dataset.resolved(), **values, **nested)
        config.check_numbers()
        return config

    def check_numbers(self) -> None:
        """Raise UserError for a value out of its range; None passes."""
        for config in (self, self.network, self.augmentation, self.optimisation):
            check_bounds(config)
        self.augmentation.check()
        self.objective.check_numbers()
        if self.augmentation.mixes and not self.objective.mixes:
            raise UserError(
                f"--loss {self.objective.loss}: cannot take mixed images; leave --mixup, --cutmix and "
                "--mixup-features out (0 if the recipe has them)"
            )
        check_preparation(self)
        self.augmentation.check_fits(self.image_size)
        self.optimisation.check(self.momentum, self.lr, self.weight_decay, self.batch_size)
        if self.schedule == "one-cycle" and self.warmup_epochs:
            raise UserError(
                f"--warmup-epochs {self.warmup_epochs}: --schedule one-cycle warms up by itself; leave it out"
            )


@dataclass(frozen=True)
class ExtractConfig:
    """Options of `extract`: a checkpoint of ours, or another program's network and the images of its classes.

    A checkpoint of ours determines network and images; only --arch (code of the user's) and --root (where the
    images are now) may be named beside it. `network.arch` is None where no network is named.
    """

    ckpt: Annotated[
        str | None,
        Option(
            "checkpoint that `train` wrote, or another program's weights of a network for these classes, "
            "which needs --arch and images",
            "files",
        ),
    ] = None
    store: Annotated[
        str, Option("store to write: a path that ends in .zarr or .h5, or s3://bucket/name.zarr", "files")
    ] = "feats.zarr"
    part: ShareOfStore = None
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(arch=None))
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    image_size: ImageSize = None
    mean: Mean = None
    std: Std = None
    crop: Crop = None
    interpolation: Interpolation = None
    classifier: Annotated[
        Literal["checkpoint", "fresh", "fit"] | None,
        Option(
            "FC layer of another program's network: the one in its file, a new one (fresh), or one that is "
            "fitted on the features (fit)",
            "network",
            "the file's",
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        Option(
            "L2 penalty (weight decay) on the weights of a classifier that is fitted",
            "network",
            "chosen on the validation split, else by folds of the training split",
            least=0,
        ),
    ] = None
    views: NViews = 1
    layers: Layers = None
    layer_dtype: LayerDtypes = ()
    dtype: MapDtype = "float16"
    codec: Codec = "none"
    precision: Precision = "fp32"
    batch_size: ImagesAtOnce = 128
    device: Device = "auto"
    workers: Workers = 2
    seed: Annotated[
        int, Option("random seed of a fresh FC layer and of views; `train` sets its own", "network", least=0)
    ] = 0
    resume: Annotated[bool, Option("resume an interrupted extraction", "files")] = False
    overwrite: Annotated[bool, Option("replace an existing store", "files")] = False

    def check(self) -> None:
        """Raise UserError for a value out of its range."""
        check_bounds(self)
        check_bounds(self.network)
        check_preparation(self)
        layer_dtypes(named_layers(self.layers), self.dtype, self.layer_dtype)


@dataclass(frozen=True)
class SampleConfig:
    """Options of `store verify` for extracting sample rows again."""

    sample: Annotated[
        int | None,
        Option("rows of each split to extract again and compare; needs --ckpt", "data", "none", least=1),
    ] = None
    ckpt: Annotated[str | None, Option("checkpoint that the store was extracted with", "files")] = None
    arch: RepeatedArch = None
    root: MovedRoot = None
    seed: Annotated[int, Option("random seed that chooses the rows of --sample", "data", least=0)] = 0
    device: Device = "auto"
    workers: Workers = 2

    def checked(self) -> "SampleConfig":
        """The same.

        Raises:
            UserError: a value out of its range, or one option without the other.
        """
        check_bounds(self)
        check_device(self.device)
        if self.sample is not None and self.ckpt is None:
            raise UserError("--sample needs --ckpt, the checkpoint that the store was extracted with")
        if self.sample is None and (self.ckpt, self.root) != (None, None):
            raise UserError("--ckpt and --root need --sample, the number of rows to extract again")
        return self


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `evaluate`."""

    ckpt: Annotated[str, Option("checkpoint that `train` or `finetune` wrote", "files")]
    arch: RepeatedArch = None
    root: MovedRoot = None
    split: Annotated[
        Literal["train", "val", "test"], Option("split of the images to evaluate on", "data")
    ] = "test"
    shot_rule: ShotRule = "decoupling"
    precision: Precision = "fp32"
    batch_size: ImagesAtOnce = 128
    device: Device = "auto"
    workers: Workers = 2

    def check(self) -> None:
        """Raise UserError for a value out of its range."""
        check_bounds(self)
        check_shot_rule(self.shot_rule)
