"""GMPG, opendilab/GenerativeRL: the terms of its losses, and their slopes along random directions.

By RK4 in the place of Euler, whose error would be all that is seen, and with moderate frequencies of the time. What its
own gradient says of the slopes is kept: it leaves out how the point on the way depends on the parameters and on the
action (`x_t = x[0].detach()`).
"""

import functools
import math
from unittest import mock

import numpy as np
import torch
from generative_rl_tools import settings, without_packages
from torch_tools import ACTION, OBSERVATION, Parameters, checkout, drawing, normal, save

path = checkout()
without_packages()
from grl.algorithms import gmpg  # noqa: E402
from grl.generative_models import metric  # noqa: E402
from grl.numerical_methods.numerical_solvers.ode_solver import ODESolver  # noqa: E402

draw = np.random.default_rng(4)
torch.manual_seed(4)
STEPS, SIZE, STEP = 40, 6, 1e-4
policy = gmpg.GMPGPolicy(settings("gvp", "velocity_function", "flow_matching", "rk4", scale=1.0))
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


weights = {key: value for key, value in guided.named_parameters() if value.requires_grad}
directions = [
    {key: torch.as_tensor(draw.standard_normal(value.shape)).float().double() for key, value in weights.items()}
    for _ in range(2)
]
for name in losses:
    found = loss(name)
    terms = zip(("loss", "q", "log_p", "log_mu"), found, strict=True)
    arrays |= {f"{name}/{term}": value.detach().numpy() for term, value in terms}
    if name == "gmpg":
        found[0].mean().backward()
own = [sum(float((way[key] * value.grad).sum()) for key, value in weights.items()) for way in directions]
arrays["gmpg/own_slopes"] = np.array(own)
for number, way in enumerate(directions):
    arrays |= {f"direction{number}/{key}": value.numpy().astype(np.float32) for key, value in way.items()}


def at(step: float, way: dict[str, torch.Tensor]) -> float:
    """GMPG's loss so far from the beginning."""
    for key, value in weights.items():
        value.data = torch.as_tensor(parameters.initial[f"guided/{key}"]) + step * way[key]
    with torch.no_grad():
        return float(loss("gmpg")[0])


slopes = [(at(STEP, way) - at(-STEP, way)) / (2 * STEP) for way in directions]
arrays["gmpg/slopes"] = np.array(slopes)
print(arrays["gmpg/slopes"], arrays["gmpg/own_slopes"])
about = {"beta": 2.0, "weight_clamp": 2.0, "solver": f"rk4, {STEPS} steps", "bits": ACTION * math.log(2)}
save("gmpg", "github.com/opendilab/GenerativeRL", path, "Apache-2.0", about, **arrays)
