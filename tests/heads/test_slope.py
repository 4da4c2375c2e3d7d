"""The value of a net with its slope, against torch's own derivatives of the net."""

import pytest
import torch
from torch.autograd import gradcheck

from ase_mlelec.heads.base import FittingNets
from ase_mlelec.heads.slope import value_and_slope


def made(widths, timestep=False, activation="tanh", n_out=1):
    torch.manual_seed(4)
    nets = FittingNets(2, 6, widths, n_out, timestep, activation).double()
    for array in (nets.shift, nets.inverse, nets.bias, nets.scale):
        array.uniform_(0.5, 1.5)
    return nets, torch.randn(5, 6, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("timestep", [False, True])
@pytest.mark.parametrize("widths", [(4,), (6, 12), (12, 12, 5)], ids=str)
def test_value_slope_and_gradients(widths, timestep):
    nets, features = made(widths, timestep)
    weights, along = torch.randn(5, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    inputs = [features, *nets.hidden[1].parameters(), *nets.last[1].parameters()]
    value = nets(features, torch.ones(5, dtype=torch.long))[:, 0]
    (slope,) = torch.autograd.grad(value.sum(), features, create_graph=True)
    expected = torch.autograd.grad((weights * value).sum() + (along * slope).sum(), inputs)
    found = value_and_slope(nets, 1, features)
    torch.testing.assert_close(found, (value, slope), rtol=1e-13, atol=1e-13)
    gradients = torch.autograd.grad((weights * found[0]).sum() + (along * found[1]).sum(), inputs)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda d: value_and_slope(nets, 1, d), features)


def test_gradient_of_the_value_alone():
    nets, features = made((6, 12))
    (slope,) = torch.autograd.grad(value_and_slope(nets, 0, features)[0].sum(), features)
    torch.testing.assert_close(slope, value_and_slope(nets, 0, features)[1].detach())


def test_other_nets_are_left_to_torch():
    for options in ({"activation": "silu"}, {"n_out": 2}):
        assert value_and_slope(made((4,), **options)[0], 0, made((4,))[1]) is None
    nets, features = made((4,))
    nets.fold()
    assert value_and_slope(nets, 0, features) is None
