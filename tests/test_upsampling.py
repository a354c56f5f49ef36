from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fundus_seg.ops.upsampling import Upsampling, upsample_bilinear


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(16, 10), (7, 13), (4, 5), (3, 2), (1, 1)])
def test_values_and_gradient_are_those_of_torch(size, memory_format):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    grad = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=memory_format)
    outputs = Upsampling.apply(x, size), F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    assert torch.equal(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad(output, x, grad)[0] for output in outputs))


def test_a_gradient_by_hand():
    """From 1x2 to 1x4: the places lie at -0.25, 0.25, 0.75 and 1.25 of the two values, the outer ones cut to them."""
    x = torch.zeros(1, 1, 1, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(Upsampling.apply(x, (1, 4)), x, torch.tensor([[[[1.0, 2.0, 4.0, 8.0]]]]))
    assert grad.flatten().tolist() == [1 + 0.75 * 2 + 0.25 * 4, 0.25 * 2 + 0.75 * 4 + 8]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_can_be_differentiated(memory_format):
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: Upsampling.apply(x, (5, 4)).square(), x)


def test_the_cpu_keeps_torch_s_own():
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    assert "UpsampleBilinear2D" in upsample_bilinear(x, (6, 8)).grad_fn.name()
