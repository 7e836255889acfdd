"""AWR, learning/awr_agent.py of xbpeng/awr: returns, advantages and weights of some paths.

Its networks are TensorFlow 1's, which cannot be installed any more; this part of it is numpy's. Run as
`python tests/parity/reference/awr.py <checkout>`.
"""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np


class Anything(types.ModuleType):
    """A module of which only names are looked up."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name)
        setattr(self, name, made)
        return made

    def __call__(self, *arguments, **options):
        return self


path = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(path))
for name in ("tensorflow", "gym", "mpi4py"):
    sys.modules[name] = Anything(name)

from learning.awr_agent import AWRAgent  # noqa: E402
from util.replay_buffer import ReplayBuffer  # noqa: E402
from util.rl_path import RLPath, Terminate  # noqa: E402

draw = np.random.default_rng(4)
settings = {"discount": 0.99, "td_lambda": 0.95, "temp": 1.0, "weight_clip": 20}
agent = AWRAgent.__new__(AWRAgent)
agent._discount, agent._td_lambda, agent._temp, agent._weight_clip = settings.values()
agent._replay_buffer = ReplayBuffer(100)
arrays = {name: [] for name in ("states", "actions", "rewards", "next_states", "terminated")}
for length, failed in ((7, True), (12, False), (1, True), (9, False), (20, True)):
    episode = RLPath()
    episode.states = list(draw.standard_normal((length + 1, 2)))
    episode.actions = list(draw.standard_normal((length, 1)))
    episode.rewards = list(draw.standard_normal(length)) if length > 1 else [60.0]  # whose weight is clipped
    episode.logps = [0.0] * length
    episode.terminate = Terminate.Fail if failed else Terminate.Null
    agent._replay_buffer.store(episode)
    arrays["states"] += episode.states[:-1]
    arrays["next_states"] += episode.states[1:]
    arrays["actions"] += episode.actions
    arrays["rewards"] += episode.rewards
    arrays["terminated"] += [0.0] * (length - 1) + [float(failed)]
slope = draw.standard_normal(2)
agent.eval_critic = lambda states: 3.0 * np.tanh(states @ slope)  # V, which is ours to choose
index = np.array(agent._replay_buffer.get_unrolled_indices())
valid = np.logical_not(agent._replay_buffer.is_path_end(index))
values = agent._compute_batch_vals(index)
returns = agent._compute_batch_new_vals(index, values)
_, standardised, _, _ = agent._calc_adv(returns, values, valid)
weights, *_ = agent._calc_adv_weights(standardised, valid)
arrays = {name: np.array(column) for name, column in arrays.items()} | {"slope": slope}
arrays |= {"values": values[valid], "returns": returns[valid], "weights": weights[valid]}
commit = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], check=True, text=True, capture_output=True).stdout
about = {"repository": "github.com/xbpeng/awr", "commit": commit.strip(), "licence": "MIT", "settings": settings}
fixtures = Path(__file__).resolve().parents[1] / "fixtures"
np.savez_compressed(fixtures / "awr.npz", about=json.dumps(about), **arrays)
print(weights[valid].max(), len(returns[valid]))
