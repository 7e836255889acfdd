"""GMPO and its behaviour model, opendilab/GenerativeRL: its own `train` over ten batches of ours, with our weights."""

from unittest import mock

import numpy as np
import torch
from generative_rl_tools import SUPPORT, Buffer, settings, train, without_packages
from thu_tools import gradients, prefixed, rows
from torch_tools import ACTION, BATCH, UPDATES, Parameters, batches, checkout, drawing, normal, save, uniform

path = checkout()
without_packages()
from grl.algorithms import gmpo  # noqa: E402

draw = np.random.default_rng(3)
torch.manual_seed(3)
data, shape = batches(draw), (UPDATES, BATCH)
data["behaviour_action"] = normal(draw, *shape, SUPPORT, ACTION) / 2
draws = {"t": uniform(draw, *shape), "noise": normal(draw, *shape, ACTION)}
draws |= {"t_softmax": uniform(draw, *shape, SUPPORT), "noise_softmax": normal(draw, *shape, SUPPORT, ACTION)}
given = [rows(data, update) for update in range(UPDATES)]
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
        parameter.data = torch.as_tensor(parameters.initial[name].copy())


policy = gmpo.GMPOPolicy(settings("gvp", "velocity_function", "flow_matching"))
critic = policy.critic
modules = {"q": critic.q, "q_target": critic.q_target, "v": critic.v}
learned, fitted = Parameters(draw, modules), Parameters(draw, {"guided": policy.guided_model.model}, 0.1)
arrays |= learned.begin() | fitted.begin()
pairs = [draws[name][update] for update in range(UPDATES) for name in ("t", "noise")]
Buffer.after = kept(arrays, learned, "", q=critic.q, v=critic.v)
train("GMPO", policy, "critic", given)
restore(learned)  # the policies' stages start from the critic as it is in the beginning
Buffer.after = kept(arrays, fitted, "gmpo/", guided=policy.guided_model.model)
with drawing(*pairs):
    train("GMPO", policy, "guided_policy", given)
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
    train("GMPO_softmax_sample", policy, "guided_policy", given)
# Their behaviour model's stage, by the same losses: on the VP-SDE with noise prediction as well.
for name, kind in (("bc", ("gvp", "velocity_function", "flow_matching")),
                   ("bc_vpsde", ("linear_vp_sde", "noise_function", "score_matching"))):  # fmt: skip
    policy = gmpo.GMPOPolicy(settings(*kind))
    moving = Parameters(draw, {"guided": policy.base_model.model})
    moving.initial = fitted.initial
    restore(moving)
    Buffer.after = kept(arrays, moving, f"{name}/", guided=policy.base_model.model)
    with drawing(*pairs):
        train("GMPO", policy, "behaviour_policy", given)
about = {"beta": 8.0, "weight_clamp": 2, "tau": 0.7, "discount": 0.99, "update_momentum": 0.005, "lr": 1e-4}
shared = {name: array for name, array in arrays.items() if name.startswith(("batch/", "draw/", "0/guided/"))}
fitting = {name: array for name, array in arrays.items() if name.startswith("bc")}
for name, own in (("gmpo", {key: value for key, value in arrays.items() if key not in fitting}),
                  ("bc", {key: value for key, value in shared.items() if "softmax" not in key} | fitting)):  # fmt: skip
    save(name, "github.com/opendilab/GenerativeRL", path, "Apache-2.0", about, **own)
