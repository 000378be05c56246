"""Options of losses, of heads with learned scales, and of heads that are computed."""

from typing import Annotated, Literal

from store.options import Option

Tau = Annotated[
    float | None,
    Option(
        "τ: factor of the log prior in balanced-softmax, isda and logit-adjustment, exponent of the weight "
        "norm in tau-norm, of the prior in multiplicative-adjustment",
        "method",
        "1, or the method's",
    ),
]
FocalGamma = Annotated[float, Option("exponent γ of the focal loss", "method", least=0)]
Beta = Annotated[float, Option("β of the effective number of samples in class-balanced losses", "method")]
WeightedMean = Annotated[
    Literal["batch", "weights"],
    Option("divide the class-balanced loss by the batch size, or by the sum of the weights", "method"),
]
FrequencyPower = Annotated[
    float,
    Option(
        "exponent ρ of the class weights π^−ρ in the re-weighted loss, with π of the sampled batches",
        "method",
        least=0,
        most=10,
    ),
]
SmoothHead = Annotated[
    float, Option("smoothing of the largest class in label-aware-smoothing", "method", least=0, most=1)
]
SmoothTail = Annotated[
    float, Option("smoothing of the smallest class in label-aware-smoothing", "method", least=0, most=1)
]
IsdaStrength = Annotated[
    float,
    Option(
        "λ of isda: share of the class variances that samples are shifted by at the end of training",
        "method",
        least=0,
        most=1000,
    ),
]
FcLrShare = Annotated[
    float,
    Option(
        "learning rate of the FC layer in mislas, as a share of --lr, which the scales have",
        "schedule",
        least=0,
    ),
]
Distance = Annotated[Literal["euclidean", "cosine"], Option("distance to class means in ncm", "method")]
Shrinkage = Annotated[
    float,
    Option("share of the identity in the covariance of lda (0: none)", "method", least=0, most=1),
]
