"""Activations that have a form of their own on CPUs are torch's, value and derivative."""

import pytest
import torch
from torch.nn import functional

from genpolicy.network.activation import ACTIVATIONS

TORCH = {"mish": functional.mish, "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh")}
FAR = [0.0, -1e-8, 1e-8, 19.9, 20.1, -1e4, 1e4]


def points(dtype):
    return torch.cat([torch.linspace(-50, 50, 5001, dtype=dtype), torch.tensor(FAR, dtype=dtype)])


def assert_torchs(name, activation, x, error):
    """The values, which are returned, and the derivatives of an activation are those of torch's in float64."""
    point, truth = x.clone().requires_grad_(), x.double().requires_grad_()
    value, expected = activation(point), TORCH[name](truth)
    (slope,) = torch.autograd.grad(value.sum(), point)
    (expected_slope,) = torch.autograd.grad(expected.sum(), truth)
    torch.testing.assert_close(value.double(), expected, rtol=error, atol=error)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=error, atol=error)
    return value


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_values_and_derivatives_are_torchs(name, dtype, error):
    x, activation = points(dtype), ACTIVATIONS[name]()
    value = assert_torchs(name, activation, x, error)
    with torch.no_grad():
        assert torch.equal(activation(x), value)
    assert activation(torch.full_like(x, torch.nan)).isnan().all()


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_values_and_derivatives_inside_transforms_are_torchs(name, dtype, error):
    x = points(dtype)
    found = torch.func.jvp(ACTIVATIONS[name](), (x,), (torch.ones_like(x),))
    expected = torch.func.jvp(TORCH[name], (x.double(),), (torch.ones_like(x).double(),))
    torch.testing.assert_close(tuple(each.double() for each in found), expected, rtol=error, atol=error)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_values_and_derivatives_when_compiled_are_torchs(name, dtype, error):
    compiled = torch.compile(ACTIVATIONS[name](), backend="aot_eager", fullgraph=True)
    assert_torchs(name, compiled, points(dtype), error)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("elements", [7, 5001])
def test_second_derivatives_too(name, transform, elements):
    x = torch.linspace(-3, 3, elements, dtype=torch.float64)

    def second(function):
        if transform:
            slope = torch.func.grad(lambda point: function(point).sum())
            return torch.func.grad(lambda point: slope(point).sum())(x)
        point = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(point).sum(), point, create_graph=True)
        return torch.autograd.grad(slope.sum(), point)[0]

    torch.testing.assert_close(second(ACTIVATIONS[name]()), second(TORCH[name]))
