"""The FC layer in training: softmax cross-entropy and SGD with momentum, written out.

The gradient of the logits is softmax minus one-hot, so autograd has nothing to find; written out, a step
takes half the time.
"""

import torch


class Head:
    """An FC layer under SGD, equal to torch.optim.SGD on torch's cross-entropy (mean over the batch).

    Attributes:
        weight: (K, C) float32.
        bias: (K,) float32.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, lr: float, momentum: float):
        self.weight = weight.clone()
        self.bias = bias.clone()
        self._lr, self._momentum = lr, momentum
        self._weight_velocity = torch.zeros_like(weight)
        self._bias_velocity = torch.zeros_like(bias)

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, K) of pooled features (B, C)."""
        return torch.nn.functional.linear(pooled, self.weight, self.bias)

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return bool(self.weight.isfinite().all() and self.bias.isfinite().all())

    def step(self, pooled: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """One step on a batch, pooled (B, C) and label (B,) int64; returns the loss before it, a scalar."""
        log_probability = self.logits(pooled).log_softmax(dim=1)
        of_label = log_probability.gather(1, label[:, None])
        gradient = log_probability.exp_()
        gradient.scatter_(1, label[:, None], of_label.exp() - 1)
        gradient /= len(label)
        self._weight_velocity.mul_(self._momentum).addmm_(gradient.T, pooled)
        self._bias_velocity.mul_(self._momentum).add_(gradient.sum(dim=0))
        self.weight.sub_(self._weight_velocity, alpha=self._lr)
        self.bias.sub_(self._bias_velocity, alpha=self._lr)
        return -of_label.mean()
