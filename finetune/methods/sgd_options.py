"""Options of training by SGD."""

from typing import Annotated, Literal

from store.options import Option

Iterations = Annotated[int, Option("SGD steps", "schedule", least=1)]
Lr = Annotated[float | None, Option("initial learning rate", "schedule", "0.001, or the method's", above=0)]
Schedule = Annotated[
    Literal["constant", "cosine"] | None,
    Option("learning rate schedule", "schedule", "constant, or the method's"),
]
Momentum = Annotated[float, Option("SGD momentum", "schedule", least=0)]
WeightDecay = Annotated[
    float | None,
    Option("L2 penalty (weight decay) on the trained weights", "schedule", "0, or the method's", least=0),
]
MaxNorm = Annotated[
    float | Literal["relative"] | None,
    Option(
        "upper bound on the norm of each class's weights: a number, or relative, a tenth of the way from "
        "Phase I's smallest norm to its largest",
        "method",
        "none, or the method's",
        above=0,
    ),
]
MaxNormEvery = Annotated[
    Literal["step", "epoch"] | None,
    Option(
        "how often norms are cut to --max-norm: after every SGD step, or after as many samples as there "
        "are training images",
        "method",
        "step, or the method's",
    ),
]
Init = Annotated[
    Literal["phase1", "fresh"] | None,
    Option("initial FC layer: Phase I's, or random weights", "method", "phase1, or the method's"),
]
