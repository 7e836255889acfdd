"""An agent of FQL's code (Park et al. 2025) trained on a file of OGBench's layout by its own updates.

    python learning_ogbench.py <algorithm> <checkout> <file.npz> <simulator> <updates> <seed> ... [<setting>=<number>]

prints a JSON line after each tenth of the updates of each seed: the successes of episodes=5, at the end of
final_episodes=50, and the values that the agent's last update reports. The algorithm is fql, ifql, iql or rebrac, the
simulator one of the package's, such as cube-single-singletask-task2-v0, hidden=128 the units of both hidden layers
of every network, and any other setting one of the agent's. Rows and rewards are those of the package's own loader,
batches of 256, actions clipped and followed by the next row's, as in its main.py. A Python is needed with jax, flax,
optax, distrax, ml_collections, ogbench and tqdm.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from functools import partial
from pathlib import Path

import gymnasium
import jax
import numpy as np
from learning_tools import EVALUATION_SEED
from ogbench import load_dataset
from ogbench.relabel_utils import relabel_dataset

MARGIN = 1e-5  # of the data's actions to the ends of their range


def rows(file: str, env, simulator: str) -> dict[str, np.ndarray]:
    """The transitions of a file, with the task's rewards."""
    data = load_dataset(file, add_info=True)
    relabel_dataset(simulator, env, data)
    data["actions"] = np.clip(data["actions"], MARGIN - 1, 1 - MARGIN)
    return {key: data[key] for key in ("observations", "actions", "rewards", "masks", "next_observations")}


@jax.jit
def play(agent, keys, observations):
    """Actions at observations, each drawn with a key of its own."""
    act = partial(agent.sample_actions, temperature=0.0)
    return jax.vmap(lambda key, observation: act(observation, seed=key))(keys, observations)


def success(agent, envs: list) -> float:
    """The share of episodes that end in success, all played at once, in %."""
    np.random.seed(EVALUATION_SEED)  # noqa: NPY002 (the package draws starts from it)
    observation = np.stack([env.reset(seed=EVALUATION_SEED + i)[0] for i, env in enumerate(envs)])
    key, running, solved = jax.random.PRNGKey(EVALUATION_SEED), np.ones(len(envs), bool), np.zeros(len(envs))
    while running.any():
        key, own = jax.random.split(key)
        action = np.asarray(play(agent, jax.random.split(own, len(envs)), observation.astype(np.float32)))
        for i in np.flatnonzero(running):
            observation[i], _, terminated, truncated, info = envs[i].step(np.clip(action[i], -1, 1))
            solved[i], running[i] = info["success"], not (terminated or truncated)
    return 100 * solved.mean()


def main(*words: str) -> None:
    settings = {key: float(value) for key, value in (word.split("=") for word in words if "=" in word)}
    counts = ("episodes", 5), ("final_episodes", 50), ("hidden", 512)
    episodes, last, hidden = (int(settings.pop(*count)) for count in counts)
    name, checkout, file, simulator, updates, *seeds = (word for word in words if "=" not in word)
    sys.path.insert(0, str(Path(checkout).resolve()))
    reference = importlib.import_module(f"agents.{name}")
    (kind,) = (value for key, value in vars(reference).items() if key.lower() == f"{name}agent")
    envs = [gymnasium.make(simulator) for _ in range(last)]
    data = rows(file, envs[0], simulator)
    config = reference.get_config()
    config.update(actor_hidden_dims=(hidden,) * 2, value_hidden_dims=(hidden,) * 2)
    config.update({key: type(config[key])(value) for key, value in settings.items()})
    for seed in map(int, seeds):
        draw, begin = np.random.default_rng(seed), time.process_time()
        agent = kind.create(seed, data["observations"][:1], data["actions"][:1], config)
        for step in range(1, int(updates) + 1):
            chosen = draw.integers(len(data["rewards"]), size=config["batch_size"])
            batch = {key: value[chosen] for key, value in data.items()}
            more = {}
            if name == "rebrac":
                batch["next_actions"] = data["actions"][np.minimum(chosen + 1, len(data["actions"]) - 1)]
                more = {"full_update": step % config["actor_freq"] == 0}
            agent, info = agent.update(batch, **more)
            if step % (int(updates) // 10) == 0:
                done = {"algorithm": name, "seed": seed, "updates": step}
                done |= {"processor_s": round(time.process_time() - begin)}
                found = success(agent, envs if step == int(updates) else envs[:episodes])
                values = {key: round(float(value), 3) for key, value in info.items()}
                print(json.dumps(done | {"success": round(found, 1)} | values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
