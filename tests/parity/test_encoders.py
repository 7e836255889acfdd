"""The encoders of observations' parts, and what lies behind them, beside GenerativeRL's, with its weights."""

import pytest
import torch
from command_line import jobs
from parity import made, put
from parity_generative_rl import SIZES, critic, frequencies, network
from parity_torch import doubles

from genpolicy.algo.algorithm import assemble

TASKS = {"cartpole_swing": "cartpole-swingup"}  # the others have the same name here
# Their names of the parts that ours have in this order, and the order in which they put what becomes of them.
WALKER = (["orientation_mlp", "height_mlp", "velocity_mlp"], [0, 2, 1])
FINGER = (["position", "velocity", "touch", "target_position", "dist_to_target"], [0, 4, 2, 3, 1])


def encoder(arrays, members, names, ours):
    """Our `EnsembleEncoder` of the encoder of each member."""

    def stacked(name):
        return torch.stack([arrays[f"{member}.{name}"] for member in members])

    found = {}
    for number, name in enumerate(names):
        for layer, own in {0: "first", 2: "second"}.items():
            found[f"{ours}.parts.{number}.{own}.weight"] = stacked(f"{name}.{layer}.weight").mT
            found[f"{ours}.parts.{number}.{own}.bias"] = stacked(f"{name}.{layer}.bias")[:, None]
        for key in ("weight", "bias"):
            found[f"{ours}.parts.{number}.norm.{key}"] = stacked(f"{name}.3.{key}")[:, None]
    return found


@pytest.mark.parametrize(("task", "names", "order"), [("walker_walk", *WALKER), ("finger_turn_hard", *FINGER)])
def test_q_v_and_the_policys_network_encode_each_part_of_an_observation(task, names, order):
    """Each by encoders of its own. What they give has another order there, in which the next layer takes it."""
    about, arrays = doubles("encoders")
    sizes = list(about["settings"]["parts"][task].values())
    observation, action, t = (arrays[f"{task}/{name}"] for name in ("observation", "action", "t"))
    words = ("algo=gmpg", *SIZES, "critic.hidden=[12,12]", f"observation_parts={sizes}".replace(" ", ""))
    algorithm = made(*words, observation=sum(sizes), action=action.shape[1])
    there = torch.arange(2 * sum(sizes)).split([2 * sizes[part] for part in order])
    columns = torch.cat([there[order.index(part)] for part in range(len(sizes))])

    start = f"0/{task}"
    weights = network(arrays, start, "guided", "policy")
    weights["policy.network.observe.weight"] = weights["policy.network.observe.weight"][:, columns]
    weights |= encoder(arrays, [f"{start}/guided/model.condition_encoder"], names, "policy.network.encoder")
    weights |= critic(arrays, start, target=False, actions=action.shape[1])
    for name in ("critic.q_network", "critic.v_network"):
        first = weights[f"{name}.layers.0.weight"]
        weights[f"{name}.layers.0.weight"] = torch.cat([first[:, columns], first[:, len(columns) :]], 1)
    members = [f"{start}/q/model.q{number}.model.state_encoder" for number in (1, 2)]
    weights |= encoder(arrays, members, names, "critic.q_network.encoder")
    weights |= encoder(arrays, [f"{start}/v/model.state_encoder"], names, "critic.v_network.encoder")
    own = {name for name, value in algorithm.named_parameters() if value.requires_grad}
    assert weights.keys() == {name for name in own if not name.startswith("behaviour.")}
    put(algorithm, weights)
    frequencies(algorithm.policy.network, arrays, f"{task}/guided")

    found = {"q": algorithm.critic.q(observation, action), "v": algorithm.critic.v(observation)}
    found["guided"] = algorithm.policy.network(action, t, observation)
    for name, value in found.items():
        torch.testing.assert_close(value, arrays[f"{task}/{name}"].view_as(value), rtol=1e-9, atol=1e-11)


def test_the_networks_of_each_task_have_as_many_parameters():
    """Those that have an influence: the encoder of the manipulators has a part there that is no observation's."""
    about, _ = doubles("encoders")
    for task, count in about["settings"]["parameters"].items():
        name, sizes = TASKS.get(task, task.replace("_", "-")), list(about["settings"]["parts"][task].values())
        for algo in ("gmpo", "gmpg"):
            [(job, _)] = jobs(f"algo={algo}", f"env=dmc-{name}", f"dataset.path={__file__}")
            assert job.config.observation_parts == ([] if name in ("cartpole-swingup", "cheetah-run") else sizes)
            with torch.device("meta"):
                ends = torch.ones(ACTIONS[name])
                algorithm = assemble(job.config, sum(sizes), -ends, ends)
            parts = {"q": algorithm.critic.q_network, "v": algorithm.critic.v_network}
            parts["guided"] = algorithm.policy.network
            found = {key: sum(p.numel() for p in part.parameters() if p.requires_grad) for key, part in parts.items()}
            assert found == count, (algo, name)


ACTIONS = {"cartpole-swingup": 1, "cheetah-run": 6, "finger-turn-hard": 2, "fish-swim": 5, "humanoid-run": 21}
ACTIONS |= {"manipulator-insert-ball": 5, "manipulator-insert-peg": 5, "walker-stand": 6, "walker-walk": 6}
