"""Figures of two-dimensional policies, as in the Swiss-roll toy of the GMPO and GMPG paper (arXiv 2412.01245)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from genpolicy.algo.algorithm import Algorithm
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.policy import Policy

SAMPLES, WAYS, POINTS, GRID = 4000, 400, 33, 160
PANEL = 3.4  # inches
DENSITY_FLOOR = 8.0  # nats below the maximum at which a density is drawn as nothing


def draw_plane(
    algorithm: Algorithm, action: np.ndarray, value: np.ndarray, value_at: Callable, extent: float, directory: Path
) -> list[Path]:
    """Draw samples, trajectories, densities and values of an algorithm's policies into PNG files of `directory`.

    action [N, 2] and value [N]: the data; value_at: actions [..., 2] -> values [...]; extent: half the width drawn.
    The behaviour model (if the algorithm has one) and the trained policy are drawn beside each other.
    """
    policies = {"behaviour (BC)": algorithm.behaviour, "trained policy": algorithm.policy}
    if algorithm.behaviour is algorithm.policy:
        del policies["trained policy"]
    policies = {name: policy for name, policy in policies.items() if policy is not None}
    densities = {name: policy for name, policy in policies.items() if policy.has_density}
    flows = {name: policy for name, policy in densities.items() if isinstance(policy, GenerativePolicy)}
    plane = _Plane(action, value, value_at, extent)
    directory.mkdir(exist_ok=True)
    figures = {
        "samples": plane.samples(
            {name: algorithm.act if policy is algorithm.policy else policy.act for name, policy in policies.items()},
            algorithm.action_low.device,
        ),
        "trajectories": plane.trajectories(flows) if flows else None,
        "density": plane.density(densities) if densities else None,
        "value": plane.value_function(algorithm.critic),
    }
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        written.append(directory / f"{name}.png")
        figure.savefig(written[-1], dpi=150)
    return written


def draw_trade_off(results: dict[int, dict[str, float]], path: Path) -> None:
    """Draw what a policy earns and what an action costs against the number of solver steps, as a PNG file.

    results: steps -> metrics of the evaluation with as many.
    """
    kind = "score" if "score_mean" in next(iter(results.values())) else "return"
    counts = list(results)
    figure = Figure(figsize=(2 * PANEL + 1.0, PANEL), layout="constrained")
    earned, cost = figure.subplots(1, 2)
    mean, std = (np.array([results[count][f"{kind}_{part}"] for count in counts]) for part in ("mean", "std"))
    earned.errorbar(counts, mean, std, marker="o", capsize=3)
    earned.set_ylabel({"score": "normalised score", "return": "return"}[kind] + " (mean and std of the episodes)")
    cost.plot(counts, [results[count]["ms_per_action"] for count in counts], marker="o")
    cost.set_ylabel("ms an action (one observation)")
    cost.set_ylim(bottom=0)
    for axis in (earned, cost):
        axis.set_xlabel("solver steps")
        axis.set_xscale("log")
        axis.set_xticks(counts, list(map(str, counts)))
        axis.minorticks_off()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def draw_ways(
    shown: dict[str, np.ndarray], cost_at: Callable, reach: float, measured: dict[str, dict[str, float]], path: Path
) -> None:
    """Draw ways [steps + 1, episodes, 2] through the plane over the contours of a cost, a panel each, as a PNG file.

    cost_at: positions [..., 2] -> cost [...]; measured: what is said about each in its title.
    """
    figure = Figure(figsize=(PANEL * len(shown), PANEL + 0.5), layout="constrained")
    side = np.linspace(-reach, reach, GRID)
    cost = cost_at(np.stack(np.meshgrid(side, side), -1))
    for (name, ways), axis in zip(shown.items(), figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        axis.contour(side, side, cost, 16, cmap="Greys_r", linewidths=0.5)
        axis.add_collection(LineCollection(ways.transpose(1, 0, 2), linewidths=0.4, alpha=0.5, colors="tab:blue"))
        axis.scatter(*ways[-1].T, s=4, c="tab:red", linewidths=0, zorder=3)
        axis.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        found = measured[name]
        axis.set_title(
            f"{name}: {found['goals']:.0f} goals, {100 * found['reached']:.0f} % end at one\n"
            f"spread of ends {found['end_spread']:.2f}, of ways {found['way_spread']:.2f}",
            fontsize="small",
        )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


class _Plane:
    """The square in which everything is drawn, with the data that belong to it."""

    def __init__(self, action: np.ndarray, value: np.ndarray, value_at: Callable, extent: float):
        self.action, self.value, self.value_at, self.extent = action, value, value_at, extent
        self.limits = {"vmin": value.min(), "vmax": value.max()}

    def samples(self, acts: dict[str, Callable], device: torch.device) -> Figure:
        """Actions of the data and of each policy, (observation, generator) -> action, coloured by their value."""
        figure, axes = self._panels(["data", *acts])
        shown = {"data": (self.action, self.value)}
        for name, act in acts.items():
            drawn = act(torch.zeros(SAMPLES, 0, device=device), _generator(device)).detach().cpu().numpy()
            shown[name] = drawn, self.value_at(drawn)
        for (name, (points, values)), axis in zip(shown.items(), axes, strict=True):
            dots = axis.scatter(*points[:SAMPLES].T, c=values[:SAMPLES], s=2, linewidths=0, **self.limits)
            axis.set_title(f"{name}: mean value {values.mean():.2f}")
        figure.colorbar(dots, ax=axes, label="value")
        return figure

    def trajectories(self, policies: dict[str, GenerativePolicy]) -> Figure:
        """The ways from noise to actions, coloured by time."""
        figure, axes = self._panels(list(policies), extent=1.5 * self.extent)
        for (name, policy), axis in zip(policies.items(), axes, strict=True):
            device = next(policy.parameters()).device
            noise = torch.randn(WAYS, 2, generator=_generator(device), device=device)
            with torch.no_grad():
                times, ways = policy.trajectory(noise[:, :0], noise, POINTS)
            ways, times = ways.cpu().numpy(), times.cpu().numpy()
            segments = np.stack([ways[:-1], ways[1:]], 2).reshape(-1, 2, 2)
            lines = LineCollection(
                segments, array=np.repeat(times[:-1], WAYS), cmap="plasma", linewidths=0.5, alpha=0.6
            )
            lines.set_clim(0, 1)
            axis.add_collection(lines)
            axis.scatter(*ways[-1].T, s=3, c="black", linewidths=0, zorder=3)
            axis.set_title(name)
        figure.colorbar(lines, ax=axes, label="time t (1 noise, 0 action)")
        return figure

    def density(self, policies: dict[str, Policy]) -> Figure:
        """The log-density of each policy on a grid."""
        figure, axes = self._panels(list(policies))
        grid = self._grid()
        maps = {}
        for name, policy in policies.items():
            points = torch.as_tensor(grid, dtype=torch.float32, device=next(policy.parameters()).device)
            with torch.no_grad():
                parts = [policy.log_prob(part, part[:, :0]) for part in points.split(4096)]
            maps[name] = torch.cat(parts).cpu().numpy()
        top = max(values.max() for values in maps.values())
        for (name, values), axis in zip(maps.items(), axes, strict=True):
            image = self._image(axis, values, cmap="magma", vmin=top - DENSITY_FLOOR, vmax=top)
            axis.set_title(name)
        figure.colorbar(image, ax=axes, label="log-density (nats)", extend="min")
        return figure

    def value_function(self, critic) -> Figure:
        """The value of the data, and the critic's Q if there is one."""
        figure, axes = self._panels(["value"] if critic is None else ["value", "Q"])
        dots = axes[0].scatter(*self.action[:SAMPLES].T, c=self.value[:SAMPLES], s=2, linewidths=0, **self.limits)
        axes[0].set_title("value of the data")
        if critic is not None:
            points = torch.as_tensor(self._grid(), dtype=torch.float32, device=next(critic.parameters()).device)
            with torch.no_grad():
                self._image(axes[1], critic.q_min(points[:, :0], points).cpu().numpy(), **self.limits)
            axes[1].set_title("learned Q")
        figure.colorbar(dots, ax=axes, label="value")
        return figure

    def _panels(self, names: list[str], extent: float | None = None) -> tuple[Figure, list[Axes]]:
        extent = extent or self.extent
        figure = Figure(figsize=(PANEL * len(names) + 1.0, PANEL + 0.3), layout="constrained")
        axes = list(figure.subplots(1, len(names), squeeze=False)[0])
        for axis in axes:
            axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        return figure, axes

    def _grid(self) -> np.ndarray:
        line = np.linspace(-self.extent, self.extent, GRID)
        return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)

    def _image(self, axis: Axes, values: np.ndarray, **style):
        size = math.isqrt(len(values))
        ends = (-self.extent, self.extent) * 2
        return axis.imshow(values.reshape(size, size), origin="lower", extent=ends, **style)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
