"""GMPO and GMPG, opendilab/GenerativeRL: its own `train` over ten batches, with weights, batches and draws of our own.

The losses of GMPG are of the networks as they are in the beginning, by RK4 in the place of Euler.
"""

import functools
import math
import sys
import types
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
from generative_rl_tools import Settings, without
from thu_tools import gradients, prefixed, rows
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Parameters,
    batches,
    checkout,
    drawing,
    normal,
    save,
    uniform,
)

path = checkout()
unused = "tensordict torchrl treetensor torchdyn wandb gym d4rl torchvision timm einops torchsde ot beartype sklearn"
without(*unused.split(), "grl.datasets", "grl.agents", "grl.rl_modules.simulators", "grl.utils.plot")
sys.modules["easydict"] = types.ModuleType("easydict")
sys.modules["easydict"].EasyDict = Settings
from grl.algorithms import gmpg, gmpo  # noqa: E402
from grl.generative_models import metric  # noqa: E402
from grl.numerical_methods.numerical_solvers.ode_solver import ODESolver  # noqa: E402

SUPPORT, TIME, CONDITION, UNITS = 4, 8, 8, [16, 8, 4]


def settings(path_type: str, model: str, loss: str, ode_solver: str = "euler") -> Settings:
    """The configuration of their benchmarks with layers of other widths."""
    place, kind = torch.device("cpu"), {"gvp": {}, "linear_vp_sde": {"beta_0": 0.1, "beta_1": 20.0}}[path_type]
    way = {"type": path_type, **kind}
    sizes = {"hidden_sizes": UNITS, "output_dim": ACTION, "t_dim": TIME, "condition_dim": OBSERVATION}
    sizes |= {"condition_hidden_dim": 4, "t_condition_hidden_dim": CONDITION}
    encoder = {"type": "GaussianFourierProjectionTimeEncoder", "args": {"embed_dim": TIME, "scale": 30.0}}
    backbone = {"type": "TemporalSpatialResidualNet", "args": sizes}
    network = {"type": model, "args": {"t_encoder": encoder, "backbone": backbone}}
    solver = {"type": "ODESolver", "args": {"library": "torchdiffeq", "ode_solver": ode_solver}}
    whole = {"device": place, "x_size": ACTION, "solver": solver, "path": way, "reverse_path": way, "model": network}
    q = {"type": "ConcatenateMLP", "args": {"hidden_sizes": [ACTION + OBSERVATION, 12, 12], "output_size": 1}}
    v = {"type": "MultiLayerPerceptron", "args": {"hidden_sizes": [OBSERVATION, 12, 12], "output_size": 1}}
    for part in (q, v):
        part["args"]["activation"] = "relu"
    critic = {"device": place, "q_alpha": 1.0, "DoubleQNetwork": {"backbone": q}, "VNetwork": {"backbone": v}}
    policy = {"device": place, "model_type": "DiffusionModel", "model_loss_type": loss, "model": whole}
    return Settings(policy | {"critic": critic})


class Buffer:
    """Their replay buffer; the batches of an epoch are ours. after: called with the number of those trained on."""

    after = staticmethod(lambda number: None)
    given: ClassVar[list] = []

    def __init__(self, **more):
        pass

    def __iter__(self):
        for number, batch in enumerate(self.given, 1):
            yield batch
            Buffer.after(number)


def train(algorithm_type: str, policy: torch.nn.Module, epochs: dict[str, int]) -> None:
    """One epoch of the stages named, by GMPOAlgorithm.train; epoch 0 counts as done."""
    stages = {
        "behaviour_policy": {"learning_rate": 1e-4},
        "critic": {"learning_rate": 3e-4, "discount_factor": 0.99, "update_momentum": 0.005, "tau": 0.7},
        "guided_policy": {"learning_rate": 1e-4, "beta": 8.0, "weight_clamp": 20},
    }
    stages["critic"]["method"] = "iql"
    parameter = {
        name: stage | {"batch_size": BATCH, "epochs": 2 * epochs.get(name, 0)} for name, stage in stages.items()
    }
    parameter |= {"algorithm_type": algorithm_type, "evaluation": {"eval": False}, "action_augment_num": SUPPORT}
    config = Settings(project="parity", parameter=parameter, model={"GPPolicy": policy.config})
    algorithm = gmpo.GMPOAlgorithm.__new__(gmpo.GMPOAlgorithm)
    algorithm.config, algorithm.simulator, algorithm.seed_value = Settings(train=config), None, 0
    algorithm.dataset, algorithm.model = types.SimpleNamespace(storage=None), {"GPPolicy": policy}
    algorithm.behaviour_policy_train_epoch = algorithm.critic_train_epoch = algorithm.guided_policy_train_epoch = 0
    run = mock.MagicMock()
    run.__enter__.return_value.config = {}
    with (
        mock.patch.object(gmpo, "TensorDictReplayBuffer", Buffer),
        mock.patch.object(gmpo, "SamplerWithoutReplacement", mock.MagicMock()),
        mock.patch.object(gmpo, "track", lambda numbers, description: numbers),
        mock.patch.object(gmpo, "wandb", mock.MagicMock(init=lambda **more: run)),
        mock.patch.object(gmpo, "merge_two_dicts_into_newone", lambda first, second: second),
    ):
        algorithm.train()


draw = np.random.default_rng(3)
torch.manual_seed(3)
data, shape = batches(draw), (UPDATES, BATCH)
data["behaviour_action"] = normal(draw, *shape, SUPPORT, ACTION) / 2
draws = {"t": uniform(draw, *shape), "noise": normal(draw, *shape, ACTION)}
draws |= {"t_softmax": uniform(draw, *shape, SUPPORT), "noise_softmax": normal(draw, *shape, SUPPORT, ACTION)}
Buffer.given = [rows(data, update) for update in range(UPDATES)]
arrays = prefixed("batch", data) | prefixed("draw", draws)


def kept(into: dict, parameters: Parameters, name: str, **modules: torch.nn.Module):
    """An `after` that keeps how far parameters have moved, and the first gradients."""

    def after(number: int) -> None:
        if number == 1:
            into.update({f"{name}{key}": value for key, value in gradients(**modules).items()} if modules else {})
        if number in (1, UPDATES):
            into.update({f"{name}{key}": value for key, value in parameters.moved(number).items()})

    return staticmethod(after)


def restore(parameters: Parameters) -> None:
    for name, parameter in parameters.named.items():
        parameter.data = torch.as_tensor(parameters.initial[name])


policy = gmpo.GMPOPolicy(settings("gvp", "velocity_function", "flow_matching"))
critic = policy.critic
modules = {"q": critic.q, "q_target": critic.q_target, "v": critic.v}
learned, fitted = Parameters(draw, modules), Parameters(draw, {"guided": policy.guided_model.model}, 0.1)
arrays |= learned.begin() | fitted.begin()
pairs = [draws[name][update] for update in range(UPDATES) for name in ("t", "noise")]
Buffer.after = kept(arrays, learned, "", q=critic.q, v=critic.v)
train("GMPO", policy, {"critic": 1})
restore(learned)  # the policies' stages start from the critic as it is in the beginning
Buffer.after = kept(arrays, fitted, "gmpo/", guided=policy.guided_model.model)
with drawing(*pairs):
    train("GMPO", policy, {"guided_policy": 1})
restore(fitted)
fake = iter(torch.as_tensor(actions).transpose(0, 1) for actions in data["behaviour_action"])
policy.behaviour_policy_sample = lambda **more: next(fake)
Buffer.after = kept(arrays, fitted, "softmax/")
flat = [
    draws[name][update].reshape(BATCH * SUPPORT, *rest)
    for update in range(UPDATES)
    for name, rest in (("t_softmax", ()), ("noise_softmax", (ACTION,)))
]
# As committed this loss cannot run: it takes torch.mean(..., dim=1) of a value a state, of which it must mean the mean.
mean = torch.mean
with drawing(*flat), mock.patch.object(torch, "mean", lambda values, dim=None: mean(values)):
    train("GMPO_softmax_sample", policy, {"guided_policy": 1})
# Their behaviour model's stage, by the same losses: on the VP-SDE with noise prediction as well.
for name, kind in (("bc", ("gvp", "velocity_function", "flow_matching")),
                   ("bc_vpsde", ("linear_vp_sde", "noise_function", "score_matching"))):  # fmt: skip
    policy = gmpo.GMPOPolicy(settings(*kind))
    moving = Parameters(draw, {"guided": policy.base_model.model})
    moving.initial = fitted.initial
    restore(moving)
    Buffer.after = kept(arrays, moving, f"{name}/", guided=policy.base_model.model)
    with drawing(*pairs):
        train("GMPO", policy, {"behaviour_policy": 1})
about = {"beta": 8.0, "weight_clamp": 20, "tau": 0.7, "discount": 0.99, "update_momentum": 0.005, "lr": 1e-4}
shared = {name: array for name, array in arrays.items() if name.startswith(("batch/", "draw/", "0/guided/"))}
fitting = {name: array for name, array in arrays.items() if name.startswith("bc")}
for name, own in (("gmpo", {key: value for key, value in arrays.items() if key not in fitting}),
                  ("bc", {key: value for key, value in shared.items() if "softmax" not in key} | fitting)):  # fmt: skip
    save(name, "github.com/opendilab/GenerativeRL", path, "Apache-2.0", about, **own)

# GMPG: the terms of its losses, their slopes along random directions, and what its own gradient says of these.
STEPS, SIZE, STEP = 400, 6, 1e-4
policy = gmpg.GMPGPolicy(settings("gvp", "velocity_function", "flow_matching", "rk4"))
critic, guided = policy.critic, policy.guided_model.model
modules = {"q": critic.q, "v": critic.v, "guided": guided, "base": policy.base_model.model}
parameters = Parameters(draw, modules, 0.1)
observation, probe = normal(draw, SIZE, OBSERVATION), np.sign(normal(draw, SIZE, ACTION))
noise = normal(draw, SIZE, ACTION)
arrays = parameters.begin() | {"observation": observation, "probe": probe, "noise": noise}
metric.ODESolver = functools.partial(ODESolver, ode_solver="rk4")
losses = {
    "gmpg": policy.policy_gradient_loss,
    "reinforce": functools.partial(policy.policy_gradient_loss_by_REINFORCE, weight_clamp=2.0),
}


def loss(name: str) -> tuple[torch.Tensor, ...]:
    """Theirs for our noise and probe, one probe for a whole solve."""
    with drawing(noise), mock.patch.object(torch, "randn_like", return_value=torch.as_tensor(probe)):
        return losses[name](torch.as_tensor(observation), gradtime_step=STEPS + 1, beta=2.0)


directions = [
    {key: torch.as_tensor(draw.standard_normal(value.shape)) for key, value in guided.named_parameters()}
    for _ in range(3)
]
for name in losses:
    found = loss(name)
    terms = zip(("loss", "q", "log_p", "log_mu"), found, strict=True)
    arrays |= {f"{name}/{term}": value.detach().numpy() for term, value in terms}
    guided.zero_grad()
    found[0].mean().backward()
    own = [
        sum(
            (way[key] * value.grad).sum()
            for key, value in guided.named_parameters()
            if key in way and value.grad is not None
        )
        for way in directions
    ]
    arrays[f"{name}/own_slopes"] = np.array([float(value) for value in own])
for number, way in enumerate(directions):
    arrays |= {f"direction{number}/{key}": value.numpy().astype(np.float32) for key, value in way.items()}


def at(step: float, way: dict[str, torch.Tensor]) -> float:
    """GMPG's loss so far from the beginning."""
    for key, value in guided.named_parameters():
        value.data = torch.as_tensor(parameters.initial[f"guided/{key}"]) + step * way[key].float()
    with torch.no_grad():
        return float(loss("gmpg")[0])


slopes = [(at(STEP, way) - at(-STEP, way)) / (2 * STEP) for way in directions]
arrays["gmpg/slopes"] = np.array(slopes)
print(arrays["gmpg/slopes"], arrays["gmpg/own_slopes"])
about = {"beta": 2.0, "weight_clamp": 2.0, "solver": f"rk4, {STEPS} steps", "bits": ACTION * math.log(2)}
save("gmpg", "github.com/opendilab/GenerativeRL", path, "Apache-2.0", about, **arrays)
