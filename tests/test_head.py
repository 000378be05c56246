import torch

from finetune.head import Head


def test_step_equals_autograd_and_torch_sgd():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    head = Head(weight, bias, lr=0.1, momentum=0.9)
    expected = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    optimizer = torch.optim.SGD(expected, lr=0.1, momentum=0.9)
    for _ in range(20):
        pooled = torch.randn(12, 7, generator=generator, dtype=torch.float64)
        label = torch.randint(5, (12,), generator=generator)
        loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(pooled, *expected), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(head.step(pooled, label), loss.detach())
        torch.testing.assert_close(head.weight, expected[0].detach())
        torch.testing.assert_close(head.bias, expected[1].detach())


def test_the_given_parameters_are_left_alone():
    weight, bias = torch.ones(3, 4), torch.zeros(3)
    Head(weight, bias, 0.1, 0.9).step(torch.ones(2, 4), torch.tensor([0, 1]))
    assert torch.equal(weight, torch.ones(3, 4))
    assert torch.equal(bias, torch.zeros(3))
