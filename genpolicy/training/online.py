"""Training in the simulator: a replay buffer that grows, and the episodes of the policy that fill it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.config.setting_groups import executed
from genpolicy.dataset.appended import Appended
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.rollout import check_finite, evaluation_seed
from genpolicy.system.console import remark
from genpolicy.training.memory import here

EPISODES = 2**31  # the first index of the seeds of training episodes: those of evaluations are below


def remark_rewards(task: Task, dataset: Dataset, transitions: Transitions) -> None:
    """Says if rewards of data and of added transitions may follow two rules: of files whose rule is not known."""
    two_rules = type(task).simulate_as_recorded is not Task.simulate_as_recorded
    if two_rules and transitions.size and not dataset.as_recorded:
        remark(
            f"{transitions.source}: transitions that are added online have the simulator's rewards, in {task.name} by "
            "another rule than those of the published data; if these are such, their own option, as dataset=d4rl, adds "
            "transitions by their rule"
        )


def require_room(transitions: Transitions, steps: int) -> None:
    """Raises `UserError` if so many transitions, added to these, do not fit into memory."""
    size, limit = 4 * steps * transitions.table.shape[1], here(transitions.table.device.type)
    if size > limit:
        raise UserError(
            f"online.steps={steps}: so many transitions take {size / 2**30:,.1f} GiB of memory, more than there is "
            f"({limit / 2**30:,.1f} GiB)"
        )


class Replay:
    """The transitions of a data set and behind them up to `capacity` others, which are added one by one.

    ratio: the share of a batch that is of the data, at the first and at the last update; between them it is linear in
    `progress` (the `ratio_ann` of Hy-Q's code, Song et al. 2023; constant in RLPD, Ball et al. 2023). None: batches are
    drawn from all alike.
    simulators: how many add to it, each an equal share of the capacity, to rows of its own: so the transitions of an
    episode follow one another. shared: whether the data set's rows are not copied, as others use them too; drawing a
    batch takes longer then.
    """

    def __init__(
        self,
        transitions: Transitions,
        capacity: int,
        ratio: tuple[float, float] | None,
        simulators: int = 1,
        shared: bool = False,
    ):
        self.offline, self.ratio, self.progress = transitions.size, ratio, 0.0
        table, self._rows = _with_room(transitions.table, capacity, shared)
        self.length, known = 1, {"table": table}
        starts = torch.arange(self.offline, device=table.device)
        if isinstance(transitions, Sequences):
            self.length, starts = transitions.length, transitions.starts
            known["ends"], self._ends = _with_room(transitions.ends, capacity, shared)
            self._ends.zero_()
        self.transitions = replace(transitions, **known)
        # Where batches begin: those of the data, and after them those of added transitions.
        self.starts, self._starts = _with_room(starts, capacity, shared)
        self.offline_starts, self.added_starts, share = len(starts), 0, capacity // simulators
        self.first = [self.offline + share * simulator for simulator in range(simulators)]  # each one's first row,
        self.next, self.episode = list(self.first), list(self.first)  # its next, and where its episode began

    @property
    def added(self) -> int:
        """How many have been added."""
        return sum(self.next) - sum(self.first)

    def add(self, row: dict[str, Any], ended: bool, simulator: int = 0) -> None:
        """Add a transition, its fields by their names. ended: whether it is the last one of its episode."""
        number, fields, episode = self.next[simulator], self.transitions.shapes, self.episode[simulator]
        like = {"dtype": torch.float32, "device": self._rows.device}
        parts = [torch.as_tensor(row[name], **like).flatten() for name in fields]
        self._rows[number - self.offline] = torch.cat(parts)
        self.next[simulator] += 1
        whole = number - self.length + 1
        new = [whole] if whole >= (self.first[simulator] if self._masked else episode) else []
        if self.length > 1:
            self._ends[number - self.offline] = ended
            if row["terminated"] and not self._masked:  # which ends the sequences that it cuts short
                new += range(max(episode, whole + 1), number + 1)
        for start in new:
            self._starts[self.added_starts] = start
            self.added_starts += 1
        if ended:
            self.episode[simulator] = number + 1

    @property
    def _masked(self) -> bool:
        return self.length > 1 and self.transitions.masked

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` transitions, or sequences of them, drawn uniformly with replacement."""

        def draw(size: int, begin: int, end: int) -> Tensor:
            return torch.randint(begin, end, (size,), generator=generator, device=self.transitions.device)

        middle, end = self.offline_starts, self.offline_starts + self.added_starts
        if self.ratio is None or not 0 < middle < end:
            number = draw(batch_size, 0, end)
        else:
            begin, last = self.ratio
            offline = math.floor(batch_size * (begin + self.progress * (last - begin)) + 0.5)
            number = torch.cat([draw(batch_size - offline, middle, end), draw(offline, 0, middle)])
        return self.transitions.rows(self.starts.index_select(0, number.to(self.starts.device)))

    def state_dict(self) -> dict[str, Any]:
        """What has been added."""
        added = self._added()
        state = {"rows": self._rows[added], "starts": self._starts[: self.added_starts].clone()}
        state |= {"next": list(self.next), "episode": list(self.episode)}
        return state | ({"ends": self._ends[added]} if self.length > 1 else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.next, self.episode, self.added_starts = list(state["next"]), list(state["episode"]), len(state["starts"])
        added = self._added()
        self._rows[added] = state["rows"].to(self._rows)
        self._starts[: self.added_starts] = state["starts"].to(self._starts)
        if self.length > 1:
            self._ends[added] = state["ends"].to(self._ends)

    def _added(self) -> Tensor:
        """The numbers, behind the data's, of the rows that have been added, one simulator's after the other's."""
        return torch.cat([torch.arange(*ends) for ends in zip(self.first, self.next, strict=True)]) - self.offline


def _with_room(tensor: Tensor, rows: int, shared: bool) -> tuple[Tensor | Appended, Tensor]:
    """A tensor [N, ...] with so many rows behind its own, which are anything yet, and these rows."""
    if shared:
        room = tensor.new_empty(rows, *tensor.shape[1:])
        return Appended(tensor, room), room
    whole = tensor.new_empty(len(tensor) + rows, *tensor.shape[1:])
    whole[: len(tensor)] = tensor
    return whole, whole[len(tensor) :]


class Player:
    """A simulator and the episode that is played in it, told by its number and its actions.

    waiting: the actions [A] that are left of a chunk. The simulator may go on writing into the observations that it
    gives, and into the actions that it is given: both are copies.
    """

    def __init__(self, env: gymnasium.Env):
        self.env = env

    def begin(self, episode: int, seed: int) -> None:
        """Begin an episode."""
        self.episode, self.actions, self.earned, self.waiting = episode, [], 0.0, []
        self.observation = np.array(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[bool, bool, float]:
        """Make a step; whether it terminated the episode, whether a time limit ended it, and the reward."""
        observation, reward, terminated, truncated, _ = self.env.step(action.copy())
        self.observation = np.array(observation)
        self.actions.append(action)
        self.earned += float(reward)
        return bool(terminated), bool(truncated), float(reward)

    def state_dict(self) -> dict[str, Any]:
        """The episode."""
        actions = torch.from_numpy(np.array(self.actions, dtype=np.float32))
        waiting = torch.stack(self.waiting).cpu() if self.waiting else torch.zeros(0)
        return {"episode": self.episode, "actions": actions, "waiting": waiting}


class Collector:
    """Plays episodes with the policy as it is, in each of its simulators one, and adds each step to a replay buffer.

    An episode is told by its seed and its actions: after a restart these bring a fresh simulator to where it was, to
    the bit as far as the simulator repeats itself. together: whether others use the transitions, too.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        transitions: Transitions,
        algorithm: Algorithm,
        config: DictConfig,
        together: bool = False,
    ):
        online = config.online
        self.task, self.dataset, self.transitions, self.seed = task, dataset, transitions, config.seed
        self.algorithm, self.noise, self.random = algorithm, online.noise, online.random
        self.start, self.updates, self.total = online.start, online.updates, online.steps
        self.length, self.execute = config.chunk.length, executed(config.chunk)
        self.device = transitions.device
        if self.random and not np.isfinite([task.action_low, task.action_high]).all():
            raise UserError(f"online.random={self.random}: the action space of {task.name} has no ends; legal: 0")
        self.unit = algorithm.scaling.single(self.length)
        ratio, end = online.offline_ratio, online.offline_ratio_end
        ratio = None if ratio is None else (ratio, ratio if end is None else end)
        self.replay = Replay(transitions, online.steps, ratio, online.simulators, together)
        self.players = [
            Player(gymnasium.wrappers.TimeLimit(dataset.simulate(task), task.max_episode_steps))
            for _ in range(online.simulators)
        ]
        self.episodes = 0  # begun so far
        for player in self.players:
            self._begin(player)

    @property
    def steps(self) -> int:
        """How many have been made in the simulators."""
        return self.replay.added

    def due(self, update: int) -> int:
        """How many of them come before an update of the phase."""
        return min(self.start + update // self.updates + 1, self.total)

    def _begin(self, player: Player) -> None:
        """Begin the next episode."""
        player.begin(self.episodes, self._seed_of(self.episodes))
        self._check(player, {"observation": player.observation}, "at the start")
        self.episodes += 1

    def _seed_of(self, episode: int) -> int:
        return evaluation_seed(self.seed, EPISODES + episode) % 2**32

    def advance(self, generator: torch.Generator) -> list[float]:
        """Make a step in each simulator; what the episodes have earned that have ended.

        Raises `UserError` for what is not finite.
        """
        self._ask(generator)
        earned = []
        for number, player in enumerate(self.players):
            action = player.waiting.pop(0).cpu().numpy()
            if not np.isfinite(action).all():
                raise UserError(
                    f"{self.task.name}: the policy's action is not a number at step {self.steps}: training has "
                    "diverged; a smaller learning rate may help"
                )
            action = np.clip(action, self.task.action_low, self.task.action_high)
            before = player.observation
            terminated, truncated, reward = player.step(action)
            given = {"reward": np.float64(reward), "observation": player.observation}
            self._check(player, given, f"in step {len(player.actions) - 1}")
            transform = self.transitions.reward_transform
            row = {
                "observation": self.unit.scale_observation(self._seen(before)),
                "action": self.unit.scale_action(torch.from_numpy(action).to(self.device)),
                "reward": self.dataset.given(reward) * transform.get("scale", 1.0) + transform.get("shift", 0.0),
                "next_observation": self.unit.scale_observation(self._seen(player.observation)),
                "terminated": float(terminated),
            }
            self.replay.add(row, terminated or truncated, number)
            if terminated or truncated:
                earned.append(player.earned)
                self._begin(player)
        return earned

    def _check(self, player: Player, given: dict[str, np.ndarray], when: str) -> None:
        one = {name: np.asarray(value)[None] for name, value in given.items()}
        check_finite(self.task, [self._seed_of(player.episode)], one, np.ones(1, dtype=bool), when)

    def _ask(self, generator: torch.Generator) -> None:
        """Have the policy choose for all simulators whose last chunk has been played, together."""
        asking = [player for player in self.players if not player.waiting]
        if not asking:
            return
        observation = torch.stack([self._seen(player.observation) for player in asking])
        if self.steps < self.random:
            chunks = self.algorithm.uniform(observation, generator)
        else:
            chunks = self.algorithm.explore(observation, generator, self.noise)
        for player, chunk in zip(asking, chunks.unflatten(-1, (self.length, -1)), strict=True):
            player.waiting = list(chunk[: self.execute])

    def _seen(self, observation: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(observation, dtype=np.float32)).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs."""
        players = [player.state_dict() for player in self.players]
        return {"replay": self.replay.state_dict(), "episodes": self.episodes, "players": players}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.replay.load_state_dict(state["replay"])
        self.episodes = state["episodes"]
        for player, saved in zip(self.players, state["players"], strict=True):
            player.begin(saved["episode"], self._seed_of(saved["episode"]))
            for action in saved["actions"].numpy():
                player.step(action)
            player.waiting = list(saved["waiting"].to(self.device))

    def close(self) -> None:
        """Free the simulators."""
        for player in self.players:
            player.env.close()
