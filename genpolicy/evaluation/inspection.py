"""What a policy does at observations of its data, drawn: its actions, their density and way from noise, values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.evaluation.drawing import draw_paths, plain, with_floor, write_png
from genpolicy.model.generative import GenerativePolicy

SAMPLES, NEIGHBOURS, TRAJECTORIES, POINTS, GRID = 400, 200, 100, 33, 31
PANEL = 3.2  # inches
DENSITY_FLOOR = 12.0  # nats below the maximum at which a density is drawn as nothing
DATA, POLICY, HERE = "tab:orange", "tab:blue", "black"


@dataclass(frozen=True)
class Inspection:
    """An algorithm's policy at rows of its data.

    rows [P]: the transitions at whose observations it is looked at. dimensions: one or two of the action's numbers
    (of a chunk's h * A), which are drawn. episode: the one of the data along which values are drawn, from 0.
    """

    algorithm: Algorithm
    data: Transitions
    rows: Sequence[int]
    dimensions: Sequence[int]
    episode: int = 0

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        data: Transitions,
        rows: Sequence[int],
        count: int,
        dimensions: Sequence[int],
        episode: int,
    ) -> "Inspection":
        """Of the given `rows`, or of `count` that are drawn. Raises `UserError` for what the data do not have."""
        size = algorithm.action_low.numel()
        if not data.size:
            raise UserError("mode=inspect: the run has no data, at whose observations a policy is looked at")
        data = data.whole()
        for name, numbers, end in (("rows", rows, data.size), ("dimensions", dimensions, size)):
            if any(number >= end for number in numbers):
                raise UserError(f"inspect.{name}={list(numbers)}: this run's are 0 to {end - 1}")
        if data.ends is not None and episode >= (episodes := int(data.ends.sum())):
            raise UserError(f"inspect.episode={episode}: the data have 0 to {episodes - 1}")
        if not rows:
            begins = data.begins.cpu()
            rows = begins[torch.randperm(len(begins), generator=torch.Generator().manual_seed(0))[:count]].tolist()
        return cls(algorithm, data, rows, dimensions or range(min(2, size)), episode)

    @plain
    def draw(self, path: Callable[[str], Path]) -> Iterator[tuple[Path | None, str]]:
        """Draws PNG files `path(name)` and gives each with its name, or None and why there is none."""
        for name, why_not in (
            ("samples", ""),
            ("density", self._no_density),
            ("trajectories", self._no_trajectories),
            ("values", self._no_values),
        ):
            if why_not:
                yield None, f"{name}: {why_not}"
            else:
                write_png(getattr(self, name)(), path(name))
                yield path(name), name

    def samples(self) -> Figure:
        """Actions of the policy, of the data at the nearest observations, and of the row itself."""
        figure, (axes,) = self._panels(1)
        for row, observation, action, axis in zip(self.rows, *self._here, axes, strict=True):
            near, distance = self._neighbours(observation)
            shown = {f"policy, {SAMPLES} actions": self._acts(observation), f"data, {len(near)} nearest": near}
            if len(self.dimensions) == 1:
                edges = np.histogram_bin_edges(np.concatenate([each[:, 0] for each in shown.values()]), 40)
                for (name, points), colour in zip(shown.items(), (POLICY, DATA), strict=True):
                    axis.hist(points[:, 0], edges, density=True, alpha=0.5, color=colour, label=name)
                axis.axvline(self._shown(action)[0], color=HERE, linewidth=1, label="this row")
            else:
                for (name, points), colour in zip(reversed(shown.items()), (DATA, POLICY), strict=True):
                    axis.scatter(*points.T, s=5, alpha=0.5, linewidths=0, color=colour, label=name)
                axis.scatter(*self._shown(action), marker="x", color=HERE, label="this row", zorder=3)
            axis.set_title(f"row {row:,}, neighbours within {distance:.2g} std", fontsize="small")
        axes[0].legend(fontsize="x-small")
        return figure

    def density(self) -> Figure:
        """The log-density where the drawn dimensions vary and the others are the row's own, around what is played."""
        figure, rows = self._panels(len(self.dimensions))
        for column, (observation, action) in enumerate(zip(*self._here, strict=True)):
            low, high = self._reach(observation, action)
            sides = [np.linspace(low[k], high[k], GRID) for k in range(len(self.dimensions))]
            axes = [axes[column] for axes in rows]
            if len(sides) == 2:
                values = self._slice(observation, action, np.stack(np.meshgrid(*sides), -1).reshape(-1, 2))
                top = values.max() if np.isfinite(values.max()) else 0.0  # of a slice outside of the action space
                floor = top - DENSITY_FLOOR
                half = (high - low) / (2 * (GRID - 1))  # of a cell, in whose middle a value is taken
                ends = (low[0] - half[0], high[0] + half[0], low[1] - half[1], high[1] + half[1])
                image = axes[0].imshow(
                    with_floor(values, floor).reshape(GRID, GRID),
                    origin="lower",
                    extent=ends,
                    aspect="auto",
                    interpolation="bilinear",
                    cmap="magma",
                    vmin=floor,
                    vmax=top,
                )
                figure.colorbar(image, ax=axes[0], pad=0.02, extend="min")
                axes[0].scatter(*self._shown(action), marker="x", color="tab:cyan")
            for k, side in enumerate(sides):
                at = np.tile(self._shown(action), (GRID, 1))
                at[:, k] = side
                axes[-1].plot(side, self._slice(observation, action, at), label=f"action {self.dimensions[k]}")
            axes[-1].set_ylabel("log-density (nats)" if column == 0 else "")
            axes[-1].set_xlabel("action")
            others = "" if action.numel() == len(sides) else ", its other dimensions"
            axes[0].set_title(f"row {self.rows[column]:,}{others}", fontsize="small")
        rows[-1][0].legend(fontsize="x-small")
        return figure

    def trajectories(self) -> Figure:
        """The trajectories of the generative ODE from noise to actions, coloured by time."""
        figure, (axes,) = self._panels(1)
        policy, scaling = self.algorithm.policy, self.data.scaling
        for row, observation, axis in zip(self.rows, self._here[0], axes, strict=True):
            noise = torch.randn(
                TRAJECTORIES, policy.action_size, generator=self._generator(), device=observation.device
            )
            with torch.no_grad():
                times, paths = policy.trajectory(
                    scaling.scale_observation(observation).expand(TRAJECTORIES, -1), noise, POINTS
                )
            paths, times = self._shown(scaling.unscale_action(paths, clip=False)), times.cpu().numpy()
            if len(self.dimensions) == 1:
                paths = np.concatenate([np.broadcast_to(times[:, None, None], paths.shape), paths], -1)
                axis.set_xlabel("time t (1 noise, 0 action)")
            lines = draw_paths(axis, times, paths)
            axis.scatter(*paths[-1].T, s=4, c=HERE, linewidths=0, zorder=3)
            axis.autoscale_view()
            axis.set_title(f"row {row:,}", fontsize="small")
        figure.colorbar(lines, ax=list(axes), pad=0.02, label="time t (1 noise, 0 action)")
        return figure

    def values(self) -> Figure:
        """What the critic says along an episode of the data, beside what the data earned from there on."""
        algorithm, steps = self.algorithm, self._episode
        observation, action = self._unscaled(self.data.rows(steps))
        lines = {"Q of the data's actions": algorithm.q(observation, action)}
        lines["Q of the policy's actions"] = algorithm.q(observation, algorithm.act(observation, self._generator()))
        if algorithm.critic.expectile is not None:
            lines["V"] = algorithm.v(observation)
        figure = Figure(figsize=(2.5 * PANEL, PANEL), layout="constrained")
        axis = figure.subplots()
        for name, values in lines.items():
            axis.plot(values.cpu().numpy(), label=name, linewidth=1)
        label = "the data's discounted return from here"
        axis.plot(self._earned(), label=label, color=HERE, linewidth=1, linestyle="dashed")
        axis.set(xlabel=f"step of episode {self.episode}", ylabel="value, in units of the trained rewards")
        axis.legend(fontsize="x-small")
        return figure

    @property
    def _no_density(self) -> str:
        if not self.algorithm.policy.has_density:
            return "this policy has none"
        return "" if self.algorithm.selection.num_candidates == 1 else "an action chosen from candidates has none"

    @property
    def _no_trajectories(self) -> str:
        return "" if isinstance(self.algorithm.policy, GenerativePolicy) else "this policy solves no ODE"

    @property
    def _no_values(self) -> str:
        if self.algorithm.critic is None:
            return "this algorithm learns no critic"
        return "the data tell no episodes" if self.data.ends is None else ""

    @cached_property
    def _here(self) -> tuple[Tensor, Tensor]:
        """The rows' observations [P, O] and actions [P, A]."""
        return self._unscaled(self.data.rows(torch.tensor(self.rows)))

    @cached_property
    def _std(self) -> Tensor:
        observation = self.data.observation
        std = observation.std(0) if observation.shape[1] else observation.new_ones(0)
        return torch.where(std > 0, std, 1.0)

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """The first row of the episode, and the last."""
        ends = [-1, *torch.nonzero(self.data.ends.cpu()).flatten().tolist()]
        return ends[self.episode] + 1, ends[self.episode + 1]

    @cached_property
    def _episode(self) -> Tensor:
        """The rows [T] of the episode at which a policy acts."""
        begins, (first, last) = self.data.begins, self._ends
        return begins[(begins >= first) & (begins <= last)]

    def _earned(self) -> np.ndarray:
        """The discounted sums [T] of the rewards of the episode from these rows on, up to a termination."""
        first, last = self._ends
        reward, terminated = (self.data[name][first : last + 1] for name in ("reward", "terminated"))
        earned = _returns(reward, terminated, self.algorithm.critic.discount)
        return earned[self._episode.cpu().numpy() - first]

    def _neighbours(self, observation: Tensor) -> tuple[np.ndarray, float]:
        """The data's actions [K, D] at the K observations nearest to one [O], and the farthest's distance.

        The distance is the root of the mean square over the dimensions, in the data's std.
        """
        here, begins = self.data.scaling.scale_observation(observation).to(self._std.device), self.data.begins
        distance = ((self.data.observation[begins] - here) / self._std).square().sum(1).div(max(1, len(here))).sqrt()
        nearest = distance.topk(min(NEIGHBOURS, len(begins)), largest=False)
        _, action = self._unscaled(self.data.rows(begins[nearest.indices]))
        return self._shown(action), nearest.values[-1].item()

    def _acts(self, observation: Tensor) -> np.ndarray:
        """Actions [K, D] as the policy plays them at an observation [O]."""
        return self._shown(self.algorithm.act(observation.expand(SAMPLES, -1), self._generator()))

    def _reach(self, observation: Tensor, action: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The ends [D] of what the policy plays there and of the row's own action, and a third more."""
        points = np.concatenate([self._acts(observation), self._shown(action)[None]])
        low, high = points.min(0), points.max(0)
        margin = np.maximum((high - low) / 3, 1e-3)
        return low - margin, high + margin

    def _slice(self, observation: Tensor, action: Tensor, shown: np.ndarray) -> np.ndarray:
        """The log-density [N] at one observation [O], of an action [A] whose drawn dimensions are `shown` [N, D]."""
        actions = action.repeat(len(shown), 1)
        actions[:, list(self.dimensions)] = torch.as_tensor(shown).to(actions)
        parts = zip(observation.expand(len(shown), -1).split(1024), actions.split(1024), strict=True)
        return torch.cat([self.algorithm.log_prob(*part, self._generator()) for part in parts]).cpu().numpy()

    def _unscaled(self, rows: Transitions) -> tuple[Tensor, Tensor]:
        scaling = self.data.scaling
        return scaling.unscale_observation(rows.observation), scaling.unscale_action(rows.action, clip=False)

    def _shown(self, action: Tensor) -> np.ndarray:
        """The drawn dimensions [..., D] of actions [..., A] in the environment's units."""
        return action[..., list(self.dimensions)].cpu().numpy()

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.algorithm.action_low.device).manual_seed(0)

    def _panels(self, count: int) -> tuple[Figure, np.ndarray]:
        """A figure with `count` rows of axes, one for each row of the data in each."""
        size = (PANEL * len(self.rows) + 0.5, (PANEL + 0.2) * count)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(count, len(self.rows), squeeze=False)
        for axis in axes[0]:
            axis.set_xlabel(f"action {self.dimensions[0]}")
        axes[0, 0].set_ylabel(f"action {self.dimensions[1]}" if len(self.dimensions) == 2 else "")
        return figure, axes


def _returns(reward: Tensor, terminated: Tensor, discount: float) -> np.ndarray:
    """The discounted sums [T] of rewards [T] from each on, up to the next that is terminated."""
    earned, sums = 0.0, []
    for each, last in zip(reversed(reward.tolist()), reversed(terminated.tolist()), strict=True):
        earned = each + discount * earned * (not last)
        sums.append(earned)
    return np.array(sums[::-1])
