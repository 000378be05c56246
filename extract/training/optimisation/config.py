"""Options of Phase I's optimiser."""

from dataclasses import dataclass
from typing import Annotated

from store.errors import UserError
from store.options import Option


@dataclass(frozen=True)
class OptimConfig:
    """How Phase I turns gradients into weights, besides what every recipe sets.

    None is the recipe's value; where it has none, plain SGD: weight decay on all weights as part of the
    gradient, no averaging, no second pass, no limit, the learning rate as it is stated.
    """

    lr_batch_size: Annotated[
        int | None,
        Option(
            "images in a step for which the learning rate is stated; it is scaled linearly to those in a "
            "step of this run",
            "schedule",
            "the recipe's, else --lr is taken as it is",
            least=1,
        ),
    ] = None
    classifier_lr: Annotated[
        float | None,
        Option(
            "initial learning rate of the FC layer, which follows the schedule too",
            "schedule",
            "the recipe's, else --lr",
            least=0,
        ),
    ] = None
    nesterov: Annotated[bool | None, Option("Nesterov momentum", "schedule", "the recipe's, else no")] = None
    decay_on_norms: Annotated[
        bool | None,
        Option("weight decay on normalisation layers and biases too", "schedule", "the recipe's, else yes"),
    ] = None
    decoupled_decay: Annotated[
        bool | None,
        Option(
            "weight decay that shrinks weights by lr times --weight-decay before a step (SGDW), instead of "
            "adding to gradients",
            "schedule",
            "the recipe's, else no",
        ),
    ] = None
    ema_decay: Annotated[
        float | None,
        Option(
            "decay of exponentially averaged weights, which are evaluated and kept; 0 keeps none",
            "schedule",
            "the recipe's, else 0",
            least=0,
        ),
    ] = None
    sam: Annotated[
        float | None,
        Option(
            "radius rho of sharpness-aware minimisation (SAM), which takes two passes a step; 0 is none",
            "schedule",
            "the recipe's, else 0",
            least=0,
        ),
    ] = None
    clip_gradient: Annotated[
        float | None,
        Option(
            "largest norm of the gradient of all weights together",
            "schedule",
            "the recipe's, else no limit",
            above=0,
        ),
    ] = None
    accumulate: Annotated[
        int,
        Option("batches in an SGD step, whose loss is the mean over all their images", "schedule", least=1),
    ] = 1

    def check(
        self, momentum: float, lr: float | None, weight_decay: float | None, batch_size: int | None
    ) -> None:
        """Raise UserError for options that mean nothing, alone or together; None passes."""
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise UserError(
                f"--ema-decay {self.ema_decay:g}: must be below 1; 0.999 averages about the last 1,000 steps"
            )
        if self.nesterov and momentum == 0:
            raise UserError("--nesterov: needs --momentum above 0, found 0")
        if self.decoupled_decay:
            self._check_decay(lr, weight_decay, batch_size)
        if self.classifier_lr and lr == 0:
            raise UserError(
                f"--classifier-lr {self.classifier_lr:g}: follows --lr, which is 0; "
                "pass a small --lr, such as 1e-9, to train the FC layer alone"
            )
        if self.sam and self.accumulate > 1:
            raise UserError(
                f"--sam {self.sam:g}: goes uphill on the batch of a step, not on {self.accumulate} of them; "
                "leave --accumulate out, or raise --batch-size"
            )

    def _check_decay(self, lr: float | None, weight_decay: float | None, batch_size: int | None) -> None:
        """Raise UserError if a step of decoupled decay would turn weights around; None passes."""
        scale, scaled = 1.0, ""
        if self.lr_batch_size is not None and batch_size is not None:
            scale = batch_size * self.accumulate / self.lr_batch_size
            scaled = "" if scale == 1 else f" (times {scale:g} for --lr-batch-size {self.lr_batch_size})"
        for name, rate in (("--lr", lr), ("--classifier-lr", self.classifier_lr)):
            if rate is not None and weight_decay is not None and scale * rate * weight_decay >= 1:
                raise UserError(
                    f"--decoupled-decay: {name} {rate:g}{scaled} times --weight-decay {weight_decay:g} must "
                    "be below 1, or a step shrinks weights past 0; lower one of them"
                )
