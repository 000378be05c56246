"""Options of Phase I's loss."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from extract.training.losses.registry import LOSSES, find_loss
from store.errors import UserError
from store.options import MOST, Option, check_bounds, flag

RE_WEIGHTING = {"beta": 0.9999, "weighted_mean": "weights"}  # options of --drw-epoch, as in the code of LDAM


def _losses() -> Iterable[str]:
    return LOSSES


@dataclass(frozen=True)
class LossConfig:
    """What Phase I minimises.

    None means the loss's own value, where it has the option (`registry.py`), and nothing where it has not.
    """

    loss: Annotated[
        str,
        Option(
            "loss of Phase I; lifted and range are added to cross-entropy, sla tells turned images apart too",
            "method",
            names=_losses,
        ),
    ] = "ce"
    label_smoothing: Annotated[
        float,
        Option("share of a label that is spread over all classes, with ce", "method", least=0, below=1),
    ] = 0.0
    focal_gamma: Annotated[
        float | None,
        Option("exponent γ of the focal loss", "method", "1 for focal, 0 for class-balanced", least=0),
    ] = None
    beta: Annotated[
        float | None,
        Option("β of the effective number of samples in class weights", "method", "0.9999", least=0, below=1),
    ] = None
    weighted_mean: Annotated[
        Literal["batch", "weights"] | None,
        Option(
            "divide a loss with class weights by the batch size, or by the sum of the weights",
            "method",
            "batch for class-balanced, weights from --drw-epoch on",
        ),
    ] = None
    drw_epoch: Annotated[
        int | None,
        Option(
            "finished epochs after which images have class weights (deferred re-weighting), with ce, focal "
            "and ldam",
            "method",
            "four fifths of the epochs for ldam, else never",
            least=0,
        ),
    ] = None
    tau: Annotated[float | None, Option("τ: factor of the log prior in balanced-softmax", "method", "1")] = (
        None
    )
    max_margin: Annotated[
        float | None, Option("margin of the smallest class in ldam", "method", "0.5", least=0)
    ] = None
    logit_scale: Annotated[float | None, Option("factor of the cosines in ldam", "method", "30", above=0)] = (
        None
    )
    smooth_head: Annotated[
        float | None,
        Option("smoothing of the largest class in label-aware-smoothing", "method", "0.3", least=0, most=1),
    ] = None
    smooth_tail: Annotated[
        float | None,
        Option("smoothing of the smallest class in label-aware-smoothing", "method", "0", least=0, most=1),
    ] = None
    metric_weight: Annotated[
        float | None,
        Option("weight of the lifted or range loss beside cross-entropy", "method", "0.01", least=0),
    ] = None
    metric_margin: Annotated[
        float | None,
        Option(
            "distance of pooled features beyond which classes are apart",
            "method",
            "1 for lifted, 5 for range",
            least=0,
        ),
    ] = None

    @property
    def mixes(self) -> bool:
        """Whether the loss can take images that are mixed of two."""
        return find_loss(self.loss).mixes

    def check_numbers(self) -> None:
        """Raise UserError for a value out of its range; None passes."""
        check_bounds(self)
        if self.tau is not None and not -MOST < self.tau < MOST:
            raise UserError(f"--tau {self.tau:g}: must be a number between -2^32 and 2^32")

    def resolved(self, epochs: int) -> "LossConfig":
        """The same, with the options of the loss filled in.

        Args:
            epochs: of the training.

        Raises:
            UserError: an option that the loss does not take, or re-weighting after the last epoch.
        """
        kind = find_loss(self.loss)
        values = {name: self._or_default(name, value, epochs) for name, value in kind.options.items()}
        if values.get("drw_epoch") is not None:
            values |= {name: self._or_default(name, value, epochs) for name, value in RE_WEIGHTING.items()}
            if values["drw_epoch"] > epochs:
                raise UserError(
                    f"--drw-epoch {values['drw_epoch']}: is more than the {epochs} of --epochs; give at "
                    f"most {epochs}, which means never"
                )
        for field in fields(self):
            if field.name not in ("loss", *values) and getattr(self, field.name) != field.default:
                raise UserError(self._not_taken(field.name))
        return replace(self, **values)

    def _or_default(self, name: str, default: Any, epochs: int) -> Any:
        if getattr(self, name) is not None:
            return getattr(self, name)
        return default(epochs) if callable(default) else default

    def _not_taken(self, name: str) -> str:
        said = f"{flag(name)} {getattr(self, name)}"
        if name in RE_WEIGHTING and "drw_epoch" in find_loss(self.loss).options:
            return f"{said}: --loss {self.loss} has no class weights without --drw-epoch; give that too"
        takers = [loss for loss, kind in LOSSES.items() if name in kind.options]
        return (
            f"{said}: --loss {self.loss} does not take it; leave it out, or use --loss {' or '.join(takers)}"
        )
