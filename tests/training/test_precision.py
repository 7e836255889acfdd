"""Precision: what is rounded in an update, and what never is."""

import pytest
import torch
from command_line import genpolicy
from tiny import words

from genpolicy.algo.update import Update
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.training.precision import arithmetic, require
from genpolicy.training.setup import choose_device

CPU = torch.device("cpu")


def test_products_are_rounded_inside_alone():
    torch.manual_seed(0)
    left, right = torch.randn(64, 64), torch.randn(64, 64)
    exact = left.double() @ right.double()

    def error(product):
        return ((product - exact).abs().mean() / exact.abs().mean()).item()

    with arithmetic("bf16", CPU):
        assert 1e-4 < error(left @ right) < 1e-2
    with arithmetic("tf32", CPU):
        assert torch.backends.cuda.matmul.allow_tf32
        assert error(left @ right) < 1e-6
    assert not torch.backends.cuda.matmul.allow_tf32
    assert error(left @ right) < 1e-6


def test_evaluations_are_in_float32_where_torch_begins_otherwise():
    """As in NVIDIA's containers."""
    torch.backends.cuda.matmul.allow_tf32 = True
    with arithmetic("float32", CPU):
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32  # as the caller has it
    choose_device("cpu")
    assert not torch.backends.cuda.matmul.allow_tf32


def test_an_update_sees_what_the_one_before_has_made_of_a_network():
    """Inside, torch keeps rounded copies of parameters."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(8, 8), torch.randn(4, 8)
    data = Transitions.of({name: x.numpy() for name in ("observation", "action", "next_observation")})
    update = Update(layer.parameters(), 0.1, lambda batch, draws: (layer(batch.observation).square().sum(-1), {}))
    with arithmetic("bf16", CPU):
        update(data, torch.Generator(), 0.0)
        found = layer(x)
    with arithmetic("bf16", CPU):
        assert torch.equal(found, layer(x))


@pytest.mark.slow
def test_log_densities_of_the_policy_gradient_are_not_rounded(tmp_path, monkeypatch):
    rounded, update = [], Update.__call__

    def spy(self, *given):
        rounded.append(torch.is_autocast_enabled("cpu"))
        return update(self, *given)

    monkeypatch.setattr(Update, "__call__", spy)
    steps = ["algo.behaviour_steps=3", "algo.critic_steps=3", "algo.policy_steps=2", "eval.per_phase=1"]
    result = genpolicy(*words(tmp_path, "algo=gmpg", *steps, "precision=bf16"))
    assert result.code == 0, result.err
    assert rounded == [True] * 6 + [False] * 2


def test_a_gpu_without_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    require("tf32", torch.device("cuda"))
    require("bf16", CPU)
    with pytest.raises(UserError, match="this GPU has no bfloat16"):
        require("bf16", torch.device("cuda"))
