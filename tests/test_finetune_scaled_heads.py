"""Learned scales, margins, and scales with the FC layer, compared with autograd and torch.optim.SGD."""

import numpy as np
import pytest
import torch
from head_oracles import CPU, LOSSES, batches, options, taught, taught_by_autograd
from torch.nn.functional import linear

from finetune.heads import scaled
from finetune.heads.scaled import TRAINED, ScaledHead


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", TRAINED)
def test_scales_margins_and_layer_equal_autograd_and_torch_sgd(kind, name, schedule):
    rng = np.random.default_rng(0)
    more = {"weight_decay": 0.01, "schedule": schedule, "n_iterations": 20}
    head = options(rng, loss=LOSSES[name], trainable=kind, fc_lr_share=0.3, **more)
    made = batches(rng, 20, 12)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in (head.weight, head.bias))
    scale = torch.ones(5, dtype=torch.float64, requires_grad=True)
    margin = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    norm = weight.detach().norm(dim=1)  # Phase I's
    groups = {
        "scales": [{"params": [scale]}],
        "margins": [{"params": [scale, margin]}],
        "scales and fc": [{"params": [scale]}, {"params": [weight, bias], "lr": 0.3 * 0.1}],
    }[kind]

    def logits(x: torch.Tensor) -> torch.Tensor:
        return linear(x, weight, bias) * scale + margin * norm

    expected = taught_by_autograd(name, logits, groups, made, 0.01, schedule)
    taught_head = ScaledHead(head, CPU)
    torch.testing.assert_close(taught(taught_head, made)[:, 0], expected, rtol=1e-6, atol=1e-6)
    folded = linear(made[0][0], *taught_head.layers()[0])
    torch.testing.assert_close(folded, logits(made[0][0]).detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(taught_head.layer[:, :7], torch.from_numpy(head.weight)) == (kind != "scales and fc")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", TRAINED)
def test_scaled_logits_laid_out_as_on_a_gpu_give_the_same_steps(kind, name, monkeypatch):
    rng, softmax = np.random.default_rng(0), []
    head = options(rng, loss=LOSSES[name], trainable=kind, weight_decay=0.01)
    made = batches(rng, 20, 12)
    by_class = ScaledHead(head, CPU)
    expected = taught(by_class, made)
    monkeypatch.setattr(scaled, "classes_innermost", lambda _: True)
    by_row, log_softmax = ScaledHead(head, CPU), torch.Tensor.log_softmax
    monkeypatch.setattr(
        torch.Tensor,
        "log_softmax",
        lambda z, dim: softmax.append((dim, z.is_contiguous())) or log_softmax(z, dim),
    )
    torch.testing.assert_close(taught(by_row, made), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(by_row.state(), by_class.state(), rtol=1e-9, atol=1e-9)
    assert set(softmax) == {(1, True)}  # over the last axis, without a copy
