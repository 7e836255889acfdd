"""A whole run of IQL beside CORL's, from the start of Python to its end, in processor time of one thread.

    python tests/benchmarks/whole_run.py --corl=<clone of tinkoff-ai/CORL> --data=<file of Hopper's in D4RL's layout>

prints the seconds of each and the medians: updates, and ten episodes of evaluation after each half of them. Ours has a
third evaluation, of the trained policy, and sends the run to MLflow; CORL's tracking is left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("observations", "actions", "rewards", "terminals", "next_observations")


def ours(data: str, steps: int) -> None:
    words = ["algo=iql", "env=hopper-medium-v2", "tuned=none", "dataset=hdf5", f"dataset.path={data}"]
    words += ["network.hidden=[256,256]", "critic.hidden=[256,256]", f"algo.steps={steps}"]
    words += ["eval.per_phase=2", "eval.episodes=10", "eval.final_episodes=10"]
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "genpolicy", *words, f"paths.outputs={outputs}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def corl(data: str, steps: int) -> None:
    """CORL's training, on today's Hopper-v4."""
    import gymnasium
    import h5py
    import torch

    torch.set_num_threads(1)

    class Env:  # as gym was in its time
        def __init__(self, env: Any, observed: Callable[[np.ndarray], np.ndarray] = lambda observation: observation):
            self.env, self.observed, self.given = env, observed, None
            self.observation_space, self.action_space = env.observation_space, env.action_space

        def seed(self, seed: int) -> None:
            self.given = seed

        def reset(self) -> np.ndarray:
            observation, self.given = self.env.reset(seed=self.given)[0], None
            return self.observed(observation)

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict]:
            observation, reward, terminated, truncated, info = self.env.step(action)
            return self.observed(observation), reward, terminated or truncated, info

        def get_normalized_score(self, score: float) -> float:
            return score

    def dataset(env: Env) -> dict[str, np.ndarray]:
        with h5py.File(data) as file:
            return {name: file[name][:] for name in COLUMNS}

    def nothing(*given: Any, **named: Any) -> None:
        pass

    wrappers = types.SimpleNamespace(TransformObservation=lambda env, observed: Env(env.env, observed))
    gym = types.SimpleNamespace(make=lambda name: Env(gymnasium.make("Hopper-v4")), Env=Env, wrappers=wrappers)
    wandb = types.SimpleNamespace(init=nothing, log=nothing, run=types.SimpleNamespace(save=nothing))
    sys.modules |= {"gym": gym, "wandb": wandb, "d4rl": types.SimpleNamespace(qlearning_dataset=dataset)}
    sys.modules["pyrallis"] = types.SimpleNamespace(wrap=lambda: lambda function: function)
    from algorithms.offline import iql

    iql.train(iql.TrainConfig(device="cpu", max_timesteps=steps, eval_freq=steps // 2))


SIDES = {"ours": ours, "CORL": corl}


def seconds(side: str, asked: argparse.Namespace) -> float:
    """Processor time of a process that makes a side's run, and of all that it starts."""
    folders = [str(Path(asked.corl).resolve()), str(Path(__file__).resolve().parent)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)}
    code = f"import whole_run; whole_run.SIDES[{side!r}]({str(Path(asked.data).resolve())!r}, {asked.steps})"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, check=True, stdout=subprocess.DEVNULL)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - sum(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corl", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, in turn")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(asked.rounds):
        for side, times in found.items():
            times.append(seconds(side, asked))
            print(f"{side}: {times[-1]:.1f} s", flush=True)
    print(", ".join(f"{side} {statistics.median(times):.1f} s" for side, times in found.items()))


if __name__ == "__main__":
    main()
