"""Registry of Phase I's losses: by name. A new loss is a file with a KIND, and a line here."""

from extract.training.losses import (
    balanced_softmax,
    class_balanced,
    cross_entropy,
    focal,
    label_aware_smoothing,
    ldam,
    lifted,
    range_loss,
    sla,
)
from extract.training.losses.kind import LossKind
from store.options import registered

LOSSES: dict[str, LossKind] = {
    "ce": cross_entropy.KIND,
    "focal": focal.KIND,
    "class-balanced": class_balanced.KIND,
    "balanced-softmax": balanced_softmax.KIND,
    "ldam": ldam.KIND,
    "label-aware-smoothing": label_aware_smoothing.KIND,
    "lifted": lifted.KIND,
    "range": range_loss.KIND,
    "sla": sla.KIND,
}


def find_loss(name: str) -> LossKind:
    """The loss with a name.

    Raises:
        UserError: there is no such loss.
    """
    return registered("--loss", LOSSES, name)
