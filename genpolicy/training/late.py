"""After which updates policies are evaluated, and the late mean, which OGBench's papers report of a run."""

import math
import statistics
from pathlib import Path

from genpolicy.algo.algorithm import Algorithm
from genpolicy.runs.journal import read

LATE_MEAN = "late mean"  # the name of the result
TENTHS = (8, 9, 10)  # of the updates of the phase that trains the policy


def spread(count: int, steps: int) -> list[int]:
    """At most `count` step numbers in 1..steps, evenly spaced, the last one included: where a phase is evaluated."""
    return sorted({math.ceil(steps * (i + 1) / count) for i in range(count)} - {0})


def late_points(steps: int) -> set[int]:
    """The step numbers in 1..steps after which the late mean is taken."""
    return {math.ceil(steps * tenths / 10) for tenths in TENTHS}


def late_mean(journal: Path, algorithm: Algorithm) -> dict[str, float]:
    """Mean and standard deviation of the evaluations after 80, 90 and 100 % of the last phase, before an online one.

    Empty if the policy was not evaluated at all three: `eval.per_phase` must be 10, or a multiple.
    """
    offline = [phase for phase in algorithm.phases if not phase.online]  # a run of given parts has none
    if not offline or offline[-1].policy is not algorithm.policy:
        return {}
    phase = offline[-1]
    begin = sum(each.steps for each in offline[:-1])
    points = {begin + point for point in late_points(phase.steps)}
    metrics = [event["metrics"] for event, _ in read(journal) if event["step"] in points]
    late = {}
    for kind in ("return", "score"):
        values = [each[f"eval/{kind}_mean"] for each in metrics if f"eval/{kind}_mean" in each]
        if len(values) == len(TENTHS):
            late |= {f"{kind}_mean": statistics.fmean(values), f"{kind}_std": statistics.pstdev(values)}
    return late
