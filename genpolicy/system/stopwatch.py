"""The time that a process spends on training."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """The seconds that a process has trained, from any moment on: time goes on, but for pauses, which may be nested."""

    _lost = 0.0

    def now(self) -> float:
        """The seconds up to now."""
        return time.monotonic() - self._lost

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, the time does not count."""
        at = self.now()
        try:
            yield
        finally:
            self._lost = time.monotonic() - at


STOPWATCH = Stopwatch()  # of all runs that are trained at once: one's evaluation is not another's training
