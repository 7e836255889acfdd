"""`mode=check`: does the simulator that stands in for the recorded one repeat what the data recorded?

A normalised score can be compared with a published one only if it does. Each recorded state is put into the simulator,
the recorded action is taken, and what follows is compared with what was recorded.
"""

import numpy as np
from rich import box
from rich.table import Table

from genpolicy.config.schema import build
from genpolicy.env.replay import Replay, replay, spread_rows
from genpolicy.errors import UserError
from genpolicy.runs.job import Job
from genpolicy.system.console import console
from genpolicy.system.progress import shown

WORST = 3  # parts of an observation that are told of


def run(job: Job) -> None:
    """Prints the errors, for transitions that go on and for those that terminate, and what to make of them."""
    config = job.config
    task = build(config.env)
    dataset = build(config.dataset, directory=config.paths.data)
    arrays, states = dataset.recorded(task)
    if states is None:
        raise UserError(
            f"mode=check: the state of {config.env.name} does not follow from its observations, and these data do "
            "not record it (infos/qpos, infos/qvel)"
        )
    rows = spread_rows(states, config.check.rows)
    with shown(f"replaying {len(rows):,} transitions", len(rows)) as advance:
        replayed = replay(task, arrays, states, rows, advance, dataset.simulate(task))
    simulator = config.env.get("simulator") or type(task).__name__
    terminal = console()
    terminal.print(
        f"{config.env.name}: {len(rows):,} of {len(arrays['reward']):,} transitions, replayed in {simulator}"
    )
    for line in dataset.statistics(task, arrays, states):
        terminal.print(line, soft_wrap=True, highlight=False)
    tolerance = config.check.tolerance
    terminal.print(_table(replayed, tolerance), _verdict(replayed, tolerance, task.unrecorded), sep="\n")


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


def _verdict(replayed: Replay, tolerance: float, unrecorded: str) -> str:
    """What the errors mean, in a line or two. unrecorded: as of a task."""
    beyond = replayed.beyond(tolerance)
    if not beyond.any():
        return f"All within {tolerance:g}: the simulator repeats the data; scores in it are those of the recorded one."
    meaning = "a score here is not the same as one in the recorded simulator."
    if unrecorded:
        meaning = f"the simulator is another one, or that is because the data do not record {unrecorded}."
    lines = [f"{beyond.sum():,} transitions ({beyond.mean():.2%}) are not within {tolerance:g}: {meaning}"]
    off = np.nan_to_num(replayed.parts) > tolerance
    if off.any():
        worst = [part for part in np.argsort(-off.mean(0))[:WORST] if off[:, part].any()]
        told = ", ".join(f"part {part} in {off[:, part].mean():.2%}" for part in worst)
        rest = np.delete(off, worst, axis=1).any(1).mean()
        lines.append(f"Of the observation, counted from 0, {told} of the transitions; all others in {rest:.2%}.")
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
