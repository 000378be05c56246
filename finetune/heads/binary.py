"""Binary cross-entropy on softmax outputs, as the code of weight balancing takes it (Alshammari et al. 2022).

A row says −log p_y − Σ log(1 − p_k) over the classes k that are not its own: a wrong class of probability 1
costs it as much as a right one of 0. With o_k = p_k / (1 − p_k), 0 for the row's own class, and O the sum of
o, the gradient of logit j is p_j (2 − O + o_j), less p_j + 1 for the row's own class.
"""

import torch

LEAST = 1e-30  # of a probability that is divided by


def binary_gradient(log_p: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, spare: torch.Tensor) -> None:
    """Put the gradient of the logits in place of log p, and minus each row's loss in `fit`.

    One class may have a probability so near to 1 that 1 − p has no digits left. It is the sum of all other
    probabilities, which has.

    Args:
        log_p: (S, K, B) of every class; taken over.
        label: (S, 1, B) int64.
        fit: (S, 1, B), written.
        spare: (S, K, B), written.
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
