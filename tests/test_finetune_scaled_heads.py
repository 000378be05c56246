"""Learned scales, margins, and scales with the FC layer, compared with autograd and torch.optim.SGD."""

import numpy as np
import pytest
import torch
from head_oracles import CPU, LOSSES, batches, options, reference_loss
from torch.nn.functional import linear

from finetune.heads.scaled import TRAINED, ScaledHead
from finetune.heads.stacked import padded


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", TRAINED)
def test_scales_margins_and_layer_equal_autograd_and_torch_sgd(kind, name, schedule):
    rng = np.random.default_rng(0)
    more = {"weight_decay": 0.01, "schedule": schedule, "n_iterations": 20}
    head = options(rng, loss=LOSSES[name], trainable=kind, fc_lr_share=0.3, **more)
    pooled, label = batches(rng, 20, 12)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in (head.weight, head.bias))
    scale = torch.ones(5, dtype=torch.float64, requires_grad=True)
    margin = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    norm = weight.detach().norm(dim=1)  # Phase I's
    groups = {
        "scales": [{"params": [scale]}],
        "margins": [{"params": [scale, margin]}],
        "scales and fc": [{"params": [scale]}, {"params": [weight, bias], "lr": 0.3 * 0.1}],
    }[kind]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    expected = []
    for x, y in zip(pooled, label, strict=True):
        loss = reference_loss(name, linear(x, weight, bias) * scale + margin * norm, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule == "cosine":
            scheduler.step()
        expected.append(loss.detach())
    scaled = ScaledHead(head, CPU)
    losses = torch.cat(
        [scaled.train_on(padded(pooled[i : i + 7]), label[i : i + 7], i) for i in range(0, 20, 7)]
    )
    torch.testing.assert_close(losses[:, 0], torch.stack(expected), rtol=1e-6, atol=1e-6)
    folded = linear(pooled[0], *scaled.layers()[0])
    with torch.no_grad():
        torch.testing.assert_close(
            folded, linear(pooled[0], weight, bias) * scale + margin * norm, rtol=1e-6, atol=1e-6
        )
    assert torch.equal(scaled.layer[:, :7], torch.from_numpy(head.weight)) == (kind != "scales and fc")
