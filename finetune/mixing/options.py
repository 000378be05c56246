"""Options of how batches are sampled and mixed."""

from typing import Annotated, Literal

from store.options import Option

Sampling = Annotated[
    Literal["uniform", "balanced", "halves"] | None,
    Option(
        "how the rows of a batch are drawn: uniformly over images, uniformly over classes (balanced), or "
        "half from tail classes, half from head classes (halves)",
        "augmentation",
        "the method's",
    ),
]
MixShare = Annotated[
    float | None,
    Option(
        "share of a batch's rows that may be replaced by new samples; in halves, fsa replaces as many as "
        "--augmented-per-sample says",
        "augmentation",
        "the method's",
        above=0,
        most=1,
    ),
]
MixClasses = Annotated[
    Literal["tail", "all", "fill"] | None,
    Option(
        "classes whose rows are replaced by new samples: tail classes, or all; fill replaces a share of each "
        "class's rows, as many as it has fewer than the largest class",
        "augmentation",
        "the method's",
    ),
]
Rho = Annotated[
    float,
    Option("share of channels that h2t takes from another row (ρ)", "augmentation", above=0, most=1),
]
Alpha = Annotated[
    float,
    Option(
        "α of mixup and remix: two rows are mixed by a share from Beta(α, α)",
        "augmentation",
        above=0,
        most=32,
    ),
]
FuseAfter = Annotated[
    str | None,
    Option(
        "earlier layer after which fsa fuses maps, in place, so that later blocks of the network run on them "
        "(Fig. 9): one that the store holds, by extract --layers",
        "augmentation",
        "the last layer",
    ),
]
NeighbourClasses = Annotated[
    int | None,
    Option(
        "number of nearest classes whose means and covariances tailcalib adds to a row's (k)",
        "augmentation",
        "3, or as many as there are classes",
        least=1,
    ),
]
Covariance = Annotated[
    Literal["full", "diagonal"],
    Option("covariances of tailcalib: full, or diagonal for variances alone", "augmentation"),
]
Spread = Annotated[
    float,
    Option(
        "number that tailcalib adds to each entry of a covariance, or to variances with --covariance "
        "diagonal; in units of the mean squared norm of features",
        "augmentation",
        least=0,
        most=32,
    ),
]
TailSamples = Annotated[
    int | None,
    Option("tail samples per batch (N_t)", "augmentation", "as many as fill --batch-size", least=1),
]
AugmentedPerSample = Annotated[
    int, Option("augmented samples per tail sample (N_a)", "augmentation", least=1)
]
ConfusingClasses = Annotated[
    int | None,
    Option(
        "number of confusing classes that lend class-generic vectors to a tail class (N_f)",
        "augmentation",
        "3, or all others if fewer",
        least=1,
    ),
]
Donors = Annotated[
    Literal["any", "head"],
    Option("classes that may lend class-generic vectors: any, or only head classes", "augmentation"),
]
GammaMin = Annotated[
    float, Option("smallest share of class-specific vectors in an augmented sample", "augmentation")
]
GammaMax = Annotated[
    float,
    Option(
        "largest share of class-specific vectors in an augmented sample; the share is drawn uniformly",
        "augmentation",
    ),
]
HeadRatio = Annotated[
    float, Option("share of training samples that the head classes hold (h_r)", "augmentation")
]
TauS = Annotated[float, Option("CAM value above which a position is class-specific (τ_s)", "augmentation")]
TauG = Annotated[float, Option("CAM value below which a position is class-generic (τ_g)", "augmentation")]
TailDraw = Annotated[
    Literal["samples", "classes"],
    Option("draw tail samples uniformly over samples, or first over tail classes", "augmentation"),
]
