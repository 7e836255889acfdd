"""Copies of this process that work beside it on the cores that are there, and end with it."""

import contextlib
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from genpolicy.system.signals import Signals


def cores(otherwise: int = 1) -> int:
    """The cores that this process may use.

    otherwise: what to take where the system does not say, as macOS; 1, as processes are not safely copied there.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else otherwise


@contextlib.contextmanager
def forked(work: Callable[[int, Connection], None], count: int) -> Iterator[list[Connection]]:
    """Runs work(number, connection) in each of `count` copies of this process; gives the other ends of the connections.

    What `work` raises is sent, and raised by `receive`. The copies are ended when the context is left, at whatever they
    are, and by themselves when this process has died.
    """
    context, processes, connections = multiprocessing.get_context("fork"), [], []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            connections.append(ours)
            process = context.Process(target=_run, args=(work, number, theirs, list(connections)), daemon=True)
            with warnings.catch_warnings():  # of threads, which a copy has not: it runs simulators, which need none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            processes.append(process)
            theirs.close()
        yield connections
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            process.close()
        for connection in connections:
            connection.close()


def receive(connection: Connection) -> Any:
    """What a copy has sent next. Raises what its work has raised, and RuntimeError if it was ended by somebody else."""
    try:
        sent = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("a process that worked beside this one was ended; was memory short?") from error
    if isinstance(sent, Exception):
        raise sent
    return sent


def _run(
    work: Callable[[int, Connection], None], number: int, connection: Connection, others: list[Connection]
) -> None:
    for each in Signals.NOTED:  # which the process that they work for obeys
        signal.signal(each, signal.SIG_IGN)
    for other in others:  # or a copy would not learn that the process they work for is gone
        other.close()
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            work(number, connection)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            connection.send(error)
