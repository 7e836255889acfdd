"""GenerativeRL's encoders of the parts of observations: what its configurations for the control suite make of them.

Its own classes and networks, by the configurations of GMPG. GMPO's have the same, but that for the finger, where the
policy's network has no encoder, and cannot take the dictionary that its observations then are. Counts are of parameters
that have a gradient, in networks of the published sizes; values are of networks with small layers behind the encoders.
"""

import runpy

import numpy as np
import torch
from generative_rl_tools import SMALL, without_packages
from torch_tools import BATCH, Parameters, checkout, normal, save, uniform

LAYOUT = {
    "cartpole_swing": {"position": 3, "velocity": 2},
    "cheetah_run": {"position": 8, "velocity": 9},
    "finger_turn_hard": {"position": 4, "velocity": 3, "touch": 2, "target_position": 2, "dist_to_target": 1},
    "fish_swim": {"joint_angles": 7, "upright": 1, "target": 3, "velocity": 13},
    "humanoid_run": {
        "joint_angles": 21,
        "head_height": 1,
        "extremities": 12,
        "torso_vertical": 3,
        "com_velocity": 3,
        "velocity": 27,
    },
    "walker_walk": {"orientations": 14, "height": 1, "velocity": 9},
}
INSERT = {"arm_pos": 16, "arm_vel": 8, "touch": 5, "hand_pos": 4, "object_pos": 4, "object_vel": 3, "target_pos": 4}
LAYOUT |= {"manipulator_insert_ball": INSERT, "manipulator_insert_peg": INSERT, "walker_stand": LAYOUT["walker_walk"]}

path = checkout()
without_packages()
from grl.algorithms import gmpg  # noqa: E402
from grl.neural_network import encoders  # noqa: E402

own, draw = set(encoders.ENCODERS), np.random.default_rng(5)
torch.manual_seed(5)


def configuration(task: str) -> dict:
    """Of the policy and the critic of a task; its file registers its encoder."""
    for name in set(encoders.ENCODERS) - own:
        del encoders.ENCODERS[name]
    return runpy.run_path(path / f"grl_pipelines/benchmark/gmpg/gvp/dm_control_suit_{task}.py")["config"]["train"][
        "model"
    ]


def modules(config: dict) -> dict[str, torch.nn.Module]:
    policy = gmpg.GMPGPolicy(gmpg.EasyDict(config["GPPolicy"]))
    return {"q": policy.critic.q, "v": policy.critic.v, "guided": policy.guided_model.model}


def values(parts: dict, observation: dict, action: np.ndarray, t: np.ndarray) -> dict[str, torch.Tensor]:
    action, t = torch.as_tensor(action), torch.as_tensor(t)
    q = torch.stack(parts["q"].compute_double_q(action, observation))
    return {"q": q, "v": parts["v"](observation), "guided": parts["guided"](t, action, observation)}


def split(observation: np.ndarray, task: str) -> dict[str, torch.Tensor]:
    """The parts of observations [B, O] that are one after another as dm_control has them; one number is [B]."""
    ends = np.cumsum(list(LAYOUT[task].values()))[:-1]
    cut = zip(LAYOUT[task], np.split(observation, ends, 1), strict=True)
    return {name: torch.as_tensor(part if part.shape[1] > 1 else part[:, 0]) for name, part in cut}


arrays, counts = {}, {}
for task, layout in LAYOUT.items():
    config = configuration(task)
    size = config["GPPolicy"]["model"]["x_size"]
    given = normal(draw, BATCH, sum(layout.values())), normal(draw, BATCH, size), uniform(draw, BATCH)
    parts, observation = modules(config), split(given[0], task)
    sum(value.sum() for value in values(parts, observation, *given[1:]).values()).backward()
    counts[task] = {
        name: sum(p.numel() for p in part.parameters() if p.grad is not None) for name, part in parts.items()
    }
    if task not in ("finger_turn_hard", "walker_walk"):
        continue
    net = config["GPPolicy"]["model"]["model"]["args"]
    net["t_encoder"]["args"] |= {"embed_dim": SMALL["time"]}
    net["backbone"]["args"] |= {"hidden_sizes": SMALL["units"], "t_dim": SMALL["time"]}
    net["backbone"]["args"] |= {
        "condition_hidden_dim": SMALL["observation"],
        "t_condition_hidden_dim": SMALL["condition"],
    }
    for name in ("DoubleQNetwork", "VNetwork"):
        hidden = config["GPPolicy"]["critic"][name]["backbone"]["args"]["hidden_sizes"]
        hidden[1:] = [SMALL["critic"]] * 2
    parts = modules(config)
    begin = Parameters(draw, parts).begin()
    found = values(parts, observation, *given[1:])
    found |= {name: torch.as_tensor(array) for name, array in zip(("observation", "action", "t"), given, strict=True)}
    arrays |= {f"{task}/{name}": value.detach().numpy() for name, value in found.items()}
    arrays |= {f"0/{task}/{name.removeprefix('0/')}": value for name, value in begin.items()}
about = {"parts": LAYOUT, "parameters": counts}
save("encoders", "github.com/opendilab/GenerativeRL", path, "Apache-2.0", about, **arrays)
