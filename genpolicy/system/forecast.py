"""When the jobs of a sweep will have ended, from how long the others took."""

import heapq
import statistics
import time
from collections.abc import Sequence

SAY_SECONDS = 5.0  # between two lines that say how far something is


def now() -> float:
    """Seconds of a monotonic clock."""
    return time.monotonic()


def time_left(took: Sequence[float], running: Sequence[float], waiting: int, at_once: int = 1) -> float | None:
    """Seconds until all jobs have ended; None as long as none has.

    took: seconds that each job took that has ended: on average, so will the others. running: for how many seconds
    each of those runs that have begun. waiting: jobs that have not, of which `at_once` run side by side.
    """
    if not took:
        return None
    usual = statistics.fmean(took)
    ends = [max(usual - seconds, 0.0) for seconds in running]
    ends += [0.0] * (at_once - len(ends))
    heapq.heapify(ends)
    for _ in range(waiting):
        heapq.heappush(ends, heapq.heappop(ends) + usual)
    return max(ends)


def shown_left(seconds: float | None) -> str:
    """', about 1:30:00 left' for the end of a line; empty if that is not known, or no time at all."""
    return f", about {duration(seconds)} left" if seconds and round(seconds) else ""


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
