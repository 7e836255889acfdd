"""A reference trained on a file of transitions by its own updates, and its last policy in the simulator.

    python learning.py <algorithm> <checkout> <file.hdf5> <simulator> <updates> <batch> <seed> ... [<setting>=<number>]
    python learning.py ours <run directory> [<run directory> ...] <simulator> [episodes=<number>] [steps=<number>]

prints a JSON line a seed; the second way plays the policies of genpolicy's runs in the same episodes. The file is one
of D4RL's format, the simulator one of gymnasium's; batches are uniform with replacement; each phase of an algorithm has
as many updates; the settings are those of the table in docs/results.md, and episodes= (20) and steps=, after which an
episode is cut. A Python with torch is needed or one with jax, flax, optax and distrax, as the reference is, and h5py
and gymnasium[mujoco].
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from learning_tools import Act, Asked, Data, evaluate

MODULES = {
    "learning_jax": ("iql", "fql", "rebrac", "idql", "edp"),
    "learning_torch": ("td3_bc", "diffusion_ql", "qgpo", "srpo", "gmpo", "bc"),
}


def ours(run: str) -> Act:
    import torch

    import genpolicy

    policy = genpolicy.load_policy(run)
    torch.manual_seed(0)
    return lambda observation: np.asarray(policy.act(observation))


def report(act: Act, simulator: str, played: dict[str, int], **more) -> None:
    returns = evaluate(act, simulator, **played)
    print(json.dumps(more | played | {"mean": round(returns.mean(), 1), "std": round(returns.std(), 1)}), flush=True)


def main(*words: str) -> None:
    warnings.filterwarnings("ignore")
    settings = {key: float(value) for key, value in (word.split("=") for word in words if "=" in word)}
    played = {key: int(settings.pop(key)) for key in ("episodes", "steps") if key in settings}
    name, *plain = (word for word in words if "=" not in word)
    if name == "ours":
        *runs, simulator = plain
        for run in runs:
            report(ours(run), simulator, played, run=run)
        return
    checkout, file, simulator, updates, batch, *seeds = plain
    path, data = Path(checkout).resolve(), Data.of(file)
    (module,) = (module for module, names in MODULES.items() if name in names)
    train = getattr(importlib.import_module(module), name)
    sys.path.insert(0, str(path))
    more = {"algorithm": name, "file": Path(file).name, "updates": int(updates), **settings}
    for seed in map(int, seeds):
        begin = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):  # some print
            act = train(Asked(path, data, int(updates), int(batch), seed), **settings)
        seconds = round(time.process_time() - begin)
        report(act, simulator, played, **more, seed=seed, processor_s=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
