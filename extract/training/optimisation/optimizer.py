"""SGD of Phase I, with what its options add: decay of some weights, averaged weights, a limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from extract.config import TrainConfig
from extract.networks.parts import Network
from extract.training.optimisation.averaged import AveragedWeights, copied


class Optimizer:
    """What becomes of a network's gradients.

    Attributes:
        network: whose weights it changes.
        sgd: torch's optimiser. A group may have `factor`, of the learning rate, and `decoupled`, its weight
            decay if that is not part of the gradient.
        average: averaged weights; None without `--ema-decay`.
        options: the options.
    """

    def __init__(self, network: Network, config: TrainConfig):
        options = config.optimisation
        self.network, self.options = network, options
        self.sgd = torch.optim.SGD(
            _groups(network, config),
            config.lr,
            config.momentum,
            weight_decay=0.0 if options.decoupled_decay else config.weight_decay,
            nesterov=bool(options.nesterov),
        )
        self.average = AveragedWeights(network, options.ema_decay) if options.ema_decay else None
        self._waiting = False

    @property
    def rate(self) -> float:
        """The learning rate of the last step, not that of the FC layer alone."""
        groups = self.sgd.param_groups  # a network may have its FC layer first
        return next((group["lr"] for group in groups if "factor" not in group), groups[0]["lr"])

    @property
    def waits(self) -> bool:
        """Whether some batches of a step are done, and others are not."""
        return self._waiting

    def begin(self) -> None:
        """Before the first batch of a step."""
        self.sgd.zero_grad()

    def wait(self) -> None:
        """After a batch that is not the last of its step."""
        self._waiting = True

    def step(self, rate: float) -> None:
        """Change the weights by their gradients, at a learning rate."""
        self._waiting = False
        for group in self.sgd.param_groups:
            group["lr"] = rate * group["factor"] if "factor" in group else rate
            if decay := group.get("decoupled"):
                with torch.no_grad():
                    for weight in group["params"]:
                        if weight.grad is not None:  # frozen ones stay, as without decoupling
                            weight *= 1 - group["lr"] * decay
        if self.options.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip_gradient)
        self.sgd.step()

    def follow(self) -> None:
        """Average the weights of a step, once they are as the loss requires."""
        if self.average is not None:
            self.average.follow(self.network)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The network has the weights that are evaluated: the averaged ones, if there are any."""
        if self.average is None:
            yield
        else:
            with self.average.used_by(self.network):
                yield

    def kept_weights(self) -> dict[str, torch.Tensor]:
        """The state of the network as it is evaluated and kept, on the CPU."""
        state = self.network.state_dict() if self.average is None else self.average.state
        return {name: tensor.cpu() for name, tensor in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state beside `kept_weights`; without further options, that of torch's optimiser."""
        state = self.sgd.state_dict()
        if self.average is not None:
            state |= {"weights": copied(self.network), "n_averaged": self.average.n_steps}
        if self._waiting:
            state["gradients"] = [weight.grad for weight in self.network.parameters()]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the network holds the `kept_weights` that were saved with it."""
        if self.average is not None:
            self.average.state, self.average.n_steps = copied(self.network), state["n_averaged"]
            self.network.load_state_dict(state["weights"])
        self.sgd.load_state_dict({name: state[name] for name in ("state", "param_groups")})
        self._waiting = "gradients" in state
        if self._waiting:
            for weight, gradient in zip(self.network.parameters(), state["gradients"], strict=True):
                weight.grad = None if gradient is None else gradient.to(weight.device)


def _groups(network: Network, config: TrainConfig) -> list[Any]:
    """The network's weights, in groups where they are not treated alike; one group is in torch's order."""
    options, decay = config.optimisation, config.weight_decay
    # Where --lr is 0, so is --classifier-lr, or it was refused.
    own_rate = None if options.classifier_lr is None or not config.lr else options.classifier_lr / config.lr
    of_classifier = {id(weight) for weight in network.classifier.parameters()}
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for weight in network.parameters():
        spared = options.decay_on_norms is False and weight.ndim <= 1
        groups.setdefault((spared, own_rate is not None and id(weight) in of_classifier), []).append(weight)
    made = []
    for (spared, apart), weights in groups.items():
        group: dict[str, Any] = {"params": weights}
        if spared:
            group["weight_decay"] = 0.0
        elif options.decoupled_decay:
            group["decoupled"] = decay
        if apart:
            group["factor"] = own_rate
        made.append(group)
    return made
