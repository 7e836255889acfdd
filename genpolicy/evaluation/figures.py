"""Figures of two-dimensional policies, as in the Swiss-roll toy of the GMPO and GMPG paper (arXiv 2412.01245)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from genpolicy.algo.actor import Actor
from genpolicy.algo.algorithm import Algorithm
from genpolicy.evaluation.drawing import draw_paths, plain, with_floor, write_png
from genpolicy.model.generative import GenerativePolicy

SAMPLES, TRAJECTORIES, POINTS, GRID = 4000, 400, 33, 120
PANEL = 3.4  # inches
DENSITY_FLOOR = 8.0  # nats below the maximum at which a density is drawn as nothing


class Toy(Protocol):
    """Data in the plane, and what is known of them: `genpolicy.env.swiss_roll.Roll`.

    action [N, 2] and value [N] are the data.
    """

    action: np.ndarray
    value: np.ndarray

    def value_at(self, action: np.ndarray) -> np.ndarray:
        """The values [...] of actions [..., 2]."""

    def exact(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The data's log-density log p(a) [N], and the expected value Q(a) [N], at actions [N, 2]."""


@plain
def draw_plane(
    algorithm: Algorithm,
    toy: Toy,
    extent: float,
    directory: Path,
    scale: float = 1.0,
    shift: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Draw samples, trajectories, densities and values of an algorithm's policies into PNG files of `directory`.

    extent: half the width drawn. scale, shift: the algorithm has learned from scale r + shift, and its beta and Q are
    in this unit. check: called now and then; may raise. The behaviour model (if the algorithm has one) and the trained
    policy are drawn beside each other, and their densities beside the exact ones, p and the optimum p exp(beta Q) / Z.
    Gives how far they are from these: the total variation distance of the policy, and of the behaviour model, where
    there are both.
    """
    policies = {"behaviour (BC)": algorithm.behaviour, "trained policy": algorithm.policy}
    if algorithm.behaviour is algorithm.policy:
        del policies["trained policy"]
    actors = {name: algorithm.actor(policy) for name, policy in policies.items() if policy is not None}
    flows = {
        name: actor
        for name, actor in actors.items()
        if actor.has_density and isinstance(actor.policy, GenerativePolicy)
    }
    plane = _Plane(toy, extent, scale, shift, check)
    density, measured = plane.density(algorithm)
    figures = {
        "samples": plane.samples({name: actor.act for name, actor in actors.items()}, algorithm.action_low.device),
        "trajectories": plane.trajectories(flows) if flows else None,
        "density": density,
        "value": plane.value_function(algorithm if algorithm.critic is not None else None),
    }
    for name, figure in figures.items():
        if figure is not None:
            write_png(figure, directory / f"{name}.png")
    return measured


@plain
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
    earned.set_ylabel({"score": "normalised score", "return": "return"}[kind] + "\n(mean and std of the episodes)")
    cost.plot(counts, [results[count]["ms_per_action"] for count in counts], marker="o")
    cost.set_ylabel("ms an action (one observation)")
    cost.set_ylim(bottom=0)
    for axis in (earned, cost):
        axis.set_xlabel("solver steps")
        axis.set_xscale("log")
        axis.set_xticks(counts, list(map(str, counts)))
        axis.minorticks_off()
    write_png(figure, path)


@plain
def draw_trajectories(
    shown: dict[str, np.ndarray], cost_at: Callable, reach: float, measured: dict[str, dict[str, float]], path: Path
) -> None:
    """Draw trajectories [steps + 1, episodes, 2] in the plane over the contours of a cost, a panel each, as a PNG file.

    cost_at: positions [..., 2] -> cost [...]; measured: what is said about each in its title.
    """
    figure = Figure(figsize=(PANEL * len(shown), PANEL + 0.5), layout="constrained")
    side = np.linspace(-reach, reach, GRID)
    cost = cost_at(np.stack(np.meshgrid(side, side), -1))
    for (name, trajectories), axis in zip(shown.items(), figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        axis.contour(side, side, cost, 16, cmap="Greys_r", linewidths=0.5)
        axis.add_collection(
            LineCollection(trajectories.transpose(1, 0, 2), linewidths=0.4, alpha=0.5, colors="tab:blue")
        )
        axis.scatter(*trajectories[-1].T, s=4, c="tab:red", linewidths=0, zorder=3)
        axis.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        found = measured[name]
        axis.set_title(
            f"{name}: {found['goals']:.0f} goals, {100 * found['reached']:.0f} % end at one\n"
            f"spread of ends {found['end_spread']:.2f}, of trajectories {found['way_spread']:.2f}",
            fontsize="small",
        )
    write_png(figure, path)


class _Plane:
    """The square in which everything is drawn, with the data that belong to it."""

    def __init__(self, toy: Toy, extent: float, scale: float, shift: float, check: Callable[[], None]):
        self.toy, self.extent, self.scale, self.shift, self.check = toy, extent, scale, shift, check
        self.limits = {"vmin": toy.value.min(), "vmax": toy.value.max()}
        middles = extent * (2 * (np.arange(GRID) + 0.5) / GRID - 1)
        self.grid = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
        self.cell = (2 * extent / GRID) ** 2
        self.log_p, self.q = toy.exact(self.grid)

    def samples(self, acts: dict[str, Callable], device: torch.device) -> Figure:
        """Actions of the data and of each policy, (observation, generator) -> action, coloured by their value."""
        figure, axes = self._panels(["data", *acts])
        shown = {"data": (self.toy.action, self.toy.value)}
        for name, act in acts.items():
            drawn = act(torch.zeros(SAMPLES, 0, device=device), _generator(device)).detach().cpu().numpy()
            shown[name] = drawn, self.toy.value_at(drawn)
        for (name, (points, values)), axis in zip(shown.items(), axes, strict=True):
            dots = axis.scatter(*points[:SAMPLES].T, c=values[:SAMPLES], s=2, linewidths=0, **self.limits)
            axis.set_title(f"{name}: mean value {values.mean():.2f}")
        figure.colorbar(dots, ax=axes, pad=0.02, label="value")
        return figure

    def trajectories(self, actors: dict[str, Actor]) -> Figure:
        """The trajectories from noise to actions, coloured by time."""
        figure, axes = self._panels(list(actors), extent=1.5 * self.extent)
        for (name, actor), axis in zip(actors.items(), axes, strict=True):
            device = actor.action_low.device
            noise = torch.randn(TRAJECTORIES, 2, generator=_generator(device), device=device)
            with torch.no_grad():
                times, trajectories = actor.policy.trajectory(noise[:, :0], noise, POINTS)
                trajectories = actor.scaling.unscale_action(trajectories, clip=False)
            trajectories, times = trajectories.cpu().numpy(), times.cpu().numpy()
            lines = draw_paths(axis, times, trajectories)
            axis.scatter(*trajectories[-1].T, s=3, c="black", linewidths=0, zorder=3)
            axis.set_title(name)
        figure.colorbar(lines, ax=axes, pad=0.02, label="time t (1 noise, 0 action)")
        return figure

    def density(self, algorithm: Algorithm) -> tuple[Figure, dict[str, float]]:
        """The log-densities on a grid, exact and learned, and the distances between them.

        A policy that is chosen from several candidates has no density of its own, and none is shown.
        """
        behaviour, policy = algorithm.behaviour, algorithm.policy
        pairs = [("behaviour", behaviour, "behaviour\nexact: p(a)", self.log_p)]
        if policy is not behaviour and algorithm.selection.num_candidates == 1:
            beta = algorithm.inverse_temperature
            target = f"optimum\nexact: p(a) exp(βQ(a)) / Z, β = {beta:g}" if beta is not None else ""
            pairs.append(("trained policy", policy, target, self._optimum(beta)))
        maps, measured = {}, {}
        for name, model, target, exact in pairs:
            if exact is not None:
                maps[target] = exact
            if model is None or not model.has_density:
                continue
            values, said = self._log_prob(algorithm.actor(model)), ""
            if exact is not None:
                metric = "behaviour_total_variation" if model is behaviour else "total_variation"
                measured[metric] = self._total_variation(values, exact)
                said = f": total variation {measured[metric]:.3f}"
            maps[f"{name}\nlearned{said}"] = values
        rows = 2 if len(maps) == 4 else 1
        figure, axes = self._panels(list(maps), rows=rows)
        top = max(values.max() for values in maps.values())
        floor = top - DENSITY_FLOOR
        for (name, values), axis in zip(maps.items(), axes, strict=True):
            image = self._image(axis, with_floor(values, floor), cmap="magma", vmin=floor, vmax=top)
            axis.set_title(name, fontsize="medium")
        figure.colorbar(image, ax=axes, pad=0.02, aspect=20 * rows, label="log-density (nats)", extend="min")
        return figure, measured

    def _optimum(self, beta: float | None) -> np.ndarray | None:
        """The log-density of p exp(beta Q) / Z on the grid, if there is a beta."""
        if beta is None:
            return None
        tilted = self.log_p + beta * self.scale * self.q
        tilted -= tilted.max()  # whose exponential would overflow
        return tilted - np.log(np.exp(tilted).sum() * self.cell)

    def _log_prob(self, actor: Actor) -> np.ndarray:
        points = torch.as_tensor(self.grid, dtype=torch.float32, device=actor.action_low.device)
        found = []
        for part in points.split(1024):
            self.check()
            found.append(actor.log_prob(part[:, :0], part))
        return torch.cat(found).cpu().numpy()

    def _total_variation(self, log_p: np.ndarray, exact: np.ndarray) -> float:
        """Half the integral of |p - exact| over the plane, all of `exact` being on the grid."""
        density = np.exp(log_p.astype(np.float64))
        outside = abs(1.0 - density.sum() * self.cell)
        return float(0.5 * (np.abs(density - np.exp(exact)).sum() * self.cell + outside))

    def value_function(self, actor: Actor | None) -> Figure:
        """The value of the data, its exact mean at an action, and the critic's Q if there is one."""
        figure, axes = self._panels(["data", "exact", *(["learned"] if actor is not None else [])])
        points = self.toy.action[:SAMPLES].T
        dots = axes[0].scatter(*points, c=self.toy.value[:SAMPLES], s=2, linewidths=0, **self.limits)
        axes[0].set_title("value of the data")
        self._image(axes[1], self.q, **self.limits)
        axes[1].set_title("Q, exact")
        if actor is not None:
            points = torch.as_tensor(self.grid, dtype=torch.float32, device=actor.action_low.device)
            learned = (actor.q(points[:, :0], points).cpu().numpy() - self.shift) / self.scale
            self._image(axes[2], learned, **self.limits)
            axes[2].set_title("Q, learned")
        figure.colorbar(dots, ax=axes, pad=0.02, label="value")
        return figure

    def _panels(self, names: list[str], extent: float | None = None, rows: int = 1) -> tuple[Figure, list[Axes]]:
        extent, columns = extent or self.extent, len(names) // rows
        figure = Figure(figsize=(PANEL * columns + 1.0, (PANEL + 0.3) * rows), layout="compressed")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        return figure, axes

    def _image(self, axis: Axes, values: np.ndarray, **style: Any) -> AxesImage:
        size = math.isqrt(len(values))
        ends = (-self.extent, self.extent) * 2
        return axis.imshow(values.reshape(size, size), origin="lower", extent=ends, interpolation="bilinear", **style)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
