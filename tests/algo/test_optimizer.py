"""The optimisers against torch's own, to the bit."""

import pytest
import torch

from genpolicy.algo.optimizer import AdamW, Momentum

SHAPES = [(7,), (3, 5), (33, 17), (), (4,)]  # the last never has a gradient
KINDS = {
    "adam": (AdamW, torch.optim.AdamW, {"weight_decay": 0.0}),
    "decayed": (AdamW, torch.optim.AdamW, {"weight_decay": 0.01}),
    "momentum": (Momentum, torch.optim.SGD, {"momentum": 0.9}),
}


def parameters(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in SHAPES]


def stepped(parameters, optimizer, steps: range) -> None:
    """Steps on gradients and learning rates that depend on the number of the step alone."""
    for step in steps:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters[:-1]:
            parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        optimizer.param_groups[0]["lr"] = 1e-3 / (1 + step)
        optimizer.step()


def assert_equal(first, second) -> None:
    """Two states of optimisers: names and their order, and all bits."""
    assert list(first) == list(second)
    assert first["param_groups"] == second["param_groups"]
    assert [list(group) for group in first["param_groups"]] == [list(group) for group in second["param_groups"]]
    assert list(first["state"]) == list(second["state"])
    for own, other in zip(first["state"].values(), second["state"].values(), strict=True):
        assert list(own) == list(other)
        for name in own:
            assert own[name].dtype == other[name].dtype
            assert torch.equal(own[name], other[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_states_are_those_of_torch(kind, dtype):
    ours, theirs, more = KINDS[kind]
    own, other = parameters(dtype), parameters(dtype)
    optimizers = ours(own, lr=3e-4, **more), theirs(other, lr=3e-4, fused=True, **more)
    assert_equal(*(optimizer.state_dict() for optimizer in optimizers))
    for tensors, optimizer in zip((own, other), optimizers, strict=True):
        stepped(tensors, optimizer, range(20))
    assert all(map(torch.equal, own, other))
    assert_equal(*(optimizer.state_dict() for optimizer in optimizers))

    again = ours(own, lr=1.0, **more), theirs(other, lr=1.0, fused=True, **more)
    again[0].load_state_dict(optimizers[1].state_dict())  # each resumes from what the other has saved
    again[1].load_state_dict(optimizers[0].state_dict())
    for tensors, optimizer in zip((own, other), again, strict=True):
        stepped(tensors, optimizer, range(20, 40))
    assert all(map(torch.equal, own, other))
    assert_equal(*(optimizer.state_dict() for optimizer in again))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_state_gets_the_type_of_its_parameters(kind):
    ours, theirs, more = KINDS[kind]
    single = parameters(torch.float32)
    optimizer = ours(single, **more)
    stepped(single, optimizer, range(2))
    found = []
    for make, fused in ((ours, {}), (theirs, {"fused": True})):
        loaded = make(parameters(torch.float64), lr=1e-3, **more, **fused)
        loaded.load_state_dict(optimizer.state_dict())
        found.append(loaded.state_dict())
    assert_equal(*found)


def test_another_one_like_it_has_its_settings_alone():
    first, more = parameters(torch.float32), {"lr": 0.1, "weight_decay": 0.5}
    optimizer = AdamW(first, **more)
    stepped(first, optimizer, range(2))
    second = parameters(torch.float32)
    other = optimizer.like(second)
    assert_equal(other.state_dict(), AdamW(second, **more).state_dict())
    stepped(second, other, range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize(
    "wrong", [lambda kept: kept["param_groups"][0]["params"].pop(), lambda kept: kept["state"][0].pop("step")]
)
def test_the_state_of_another_optimiser_is_refused(wrong):
    optimizer = AdamW(tensors := parameters(torch.float32))
    stepped(tensors, optimizer, range(1))
    state = optimizer.state_dict()
    wrong(state)
    with pytest.raises((RuntimeError, KeyError)):
        AdamW(parameters(torch.float32)).load_state_dict(state)


def test_the_state_of_parameters_of_other_shapes_is_refused():
    optimizer = AdamW(tensors := parameters(torch.float32))
    stepped(tensors, optimizer, range(1))
    state = optimizer.state_dict()
    state["state"][1]["exp_avg"] = torch.zeros(5, 3)
    with pytest.raises(RuntimeError, match=r"exp_avg \(5, 3\) is not that of its parameter"):
        AdamW(parameters(torch.float32)).load_state_dict(state)
