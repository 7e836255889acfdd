"""`mode=check`: does the simulator that stands in for the recorded one repeat what the data recorded?

A normalised score can be compared with a published one only if it does. Each recorded state is put into the simulator,
the recorded action is taken, and what follows is compared with what was recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from genpolicy.config.schema import build
from genpolicy.dataset.dataset import progress
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.console import console

PROGRESS_EVERY = 500  # transitions
FEW, ANOTHER = 20, 1.0  # transitions replayed when data are loaded, and the error above which they are of another robot
CONSTANT = 1e-6  # standard deviation of a part that does not change


@dataclass(frozen=True)
class Replay:
    """Errors of n replayed transitions.

    observation [n]: the largest of its parts, each in its standard deviation over the data, NaN for a termination,
    after which none is recorded; reward [n]: what the simulator gives more; recorded_end [n], replayed_end [n]: whether
    the episode terminated.
    """

    observation: np.ndarray
    reward: np.ndarray
    recorded_end: np.ndarray
    replayed_end: np.ndarray

    @property
    def kinds(self) -> dict[str, np.ndarray]:
        """The transitions [n] of either kind, by what is said of them."""
        return {"that go on": ~self.recorded_end, "that terminate": self.recorded_end}

    def beyond(self, tolerance: float) -> np.ndarray:
        """Which transitions [n] do not repeat within the tolerance."""
        large = np.nan_to_num(self.observation) > tolerance
        return large | (np.abs(self.reward) > tolerance) | (self.recorded_end != self.replayed_end)


def show(config: DictConfig) -> None:
    """Prints the errors, for transitions that go on and for those that terminate, and what to make of them."""
    task = build(config.env)
    dataset = build(config.dataset, directory=config.paths.data)
    arrays, states = dataset.recorded(task)
    if states is None:
        raise UserError(
            f"mode=check: the state of {config.env.name} does not follow from its observations, and these data do "
            "not record it (infos/qpos, infos/qvel)"
        )
    rows = spread_rows(states, config.check.rows)
    with progress(f"replaying {len(rows):,} transitions", total=len(rows)) as advance:
        replayed = replay(task, arrays, states, rows, advance)
    simulator = config.env.get("simulator") or type(task).__name__
    shown = console()
    shown.print(f"{config.env.name}: {len(rows):,} of {len(arrays['reward']):,} transitions, replayed in {simulator}")
    shown.print(_table(replayed, config.check.tolerance), _verdict(replayed, config.check.tolerance), sep="\n")


def spread_rows(states: dict[str, np.ndarray], count: int) -> np.ndarray:
    """At most `count` rows whose state is known, spread evenly over all of them."""
    known = np.flatnonzero(np.all([np.isfinite(column).all(1) for column in states.values()], axis=0))
    return known[np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).astype(int))]


def replay(
    task: Task,
    arrays: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    rows: np.ndarray,
    advance: Callable[[int], None] = lambda done: None,
) -> Replay:
    """Replays the transitions `rows` [n] of a data set from their states. Raises `UserError` for states of another.

    advance: told now and then how many are done.
    """
    env, scale = task.simulate(), arrays["observation"].std(axis=0)
    scale[scale < CONSTANT] = 1
    env.reset(seed=0)
    errors, rewards, ends = np.full(len(rows), np.nan), np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    for number, row in enumerate(rows):
        _place(task, env, {name: column[row].astype(np.float64) for name, column in states.items()})
        observation, reward, ends[number], _, _ = env.step(arrays["action"][row])
        rewards[number] = reward - arrays["reward"][row]
        if not arrays["terminated"][row]:
            errors[number] = (np.abs(observation - arrays["next_observation"][row]) / scale).max()
        if number % PROGRESS_EVERY == 0:
            advance(number)
    env.close()
    return Replay(errors, rewards, arrays["terminated"][rows], ends)


def _place(task: Task, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
    try:
        task.place(env, state)
    except (AssertionError, ValueError, KeyError, AttributeError) as error:
        sizes = ", ".join(f"{name} [{len(value)}]" for name, value in state.items())
        raise UserError(f"the data's states, {sizes}, are none of {task.name}: were they recorded in it?") from error


def check_robot(task: Task, arrays: dict[str, np.ndarray], states: dict[str, np.ndarray], source: str) -> None:
    """Replays a few transitions. Raises `UserError` if they are clearly those of another simulator.

    The right one, of whatever version, is some .05 standard deviations off at most; another robot, several.
    """
    rows = spread_rows(states, FEW)
    errors = replay(task, arrays, states, rows).observation
    if np.isfinite(errors).any() and (middle := float(np.nanmedian(errors))) > ANOTHER:
        raise UserError(
            f"{source}: not recorded in {task.recorded_in}: {len(rows)} recorded steps, taken again there from their "
            f"states, end {middle:.2g} standard deviations from what was recorded (median); give the env of these data"
        )


def _table(replayed: Replay, tolerance: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("transitions", "number", "out of tolerance", "observation*: median", "99 %", "max")
    for name in (*columns, "reward: median", "99 %", "max"):
        table.add_column(name, justify="left" if name == "transitions" else "right", no_wrap=True)
    table.caption = "errors of one step; * the worst part, in its standard deviation over the data"
    table.caption_justify = "left"
    beyond = replayed.beyond(tolerance)
    for name, some in replayed.kinds.items():
        if some.any():
            share = f"{beyond[some].sum():,} ({beyond[some].mean():.2%})"
            errors = *_quantiles(replayed.observation[some]), *_quantiles(np.abs(replayed.reward[some]))
            table.add_row(name, f"{some.sum():,}", share, *errors)
    return table


def _quantiles(errors: np.ndarray) -> list[str]:
    """Median, 99 % quantile and maximum, or nothing where there is nothing to compare."""
    if np.isnan(errors).all():
        return ["", "", ""]
    return [f"{value:.0e}" for value in np.quantile(errors, [0.5, 0.99, 1.0])]


def _verdict(replayed: Replay, tolerance: float) -> str:
    """What the errors mean, in a line or two."""
    beyond = replayed.beyond(tolerance)
    if not beyond.any():
        return f"All within {tolerance:g}: the simulator repeats the data; scores in it are those of the recorded one."
    lines = [
        f"{beyond.sum():,} transitions ({beyond.mean():.2%}) are not within {tolerance:g}: a score here is not the"
        " same as one in the recorded simulator."
    ]
    early = (replayed.replayed_end & ~replayed.recorded_end).sum()
    late = (replayed.recorded_end & ~replayed.replayed_end).sum()
    if early or late:
        lines.append(f"Terminations: {early:,} only in the simulator, {late:,} only in the data.")
    for name, some in replayed.kinds.items():
        # A rule of rewards that is another one shows as the same difference again and again.
        if some.any() and abs(middle := float(np.median(replayed.reward[some]))) > tolerance:
            lines.append(
                f"Rewards: half of the transitions {name} get at least {abs(middle):.3g} "
                f"{'more' if middle > 0 else 'less'} in the simulator: its rule is another one."
            )
    return "\n".join(lines)
