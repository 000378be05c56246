"""Binary cross-entropy on softmax outputs, as in the code of weight balancing (Alshammari et al. 2022).

The loss of a row with label y is −log p_y − Σ log(1 − p_k), summed over the other classes k. With
o_k = p_k / (1 − p_k), o_y = 0 and O = Σ o_k, the gradient of logit j is p_j (2 − O + o_j), minus p_j + 1
for j = y.
"""

import torch

LEAST = 1e-30  # smallest probability to divide by


def binary_gradient(log_p: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, spare: torch.Tensor) -> None:
    """Replace log p by the gradient of the logits, and write minus each row's loss to `fit`.

    The top class may be so close to 1 that 1 − p has no digits left; there, 1 − p is computed as the sum of
    all other probabilities.

    Args:
        log_p: (S, K, B) log p of every class; overwritten.
        label: (S, 1, B) int64.
        fit: (S, 1, B) output.
        spare: (S, K, B) scratch memory.
    """
    torch.gather(log_p, 1, label, out=fit)
    p = log_p.exp_()
    top = p.argmax(1, keepdim=True)
    rest = torch.sub(1, p, out=spare)
    rest.scatter_(1, top, p.scatter(1, top, 0).sum(1, keepdim=True).clamp_(min=LEAST))
    odds = (p / rest).scatter_(1, label, 0)
    fit += rest.log_().scatter_(1, label, 0).sum(1, keepdim=True)
    without_top = odds.scatter(1, top, 0).sum(1, keepdim=True)
    of_others = (without_top + odds.gather(1, top)).sub(odds).scatter_(1, top, without_top)
    own = p.gather(1, label)
    p.mul_(of_others.neg_().add_(2)).scatter_add_(1, label, own.add_(1).neg_())
