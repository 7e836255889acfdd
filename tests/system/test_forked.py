"""Copies of this process that work beside it."""

import os
import signal
import time

import pytest

from genpolicy.errors import UserError
from genpolicy.system.forked import cores, forked, receive


def test_each_does_its_work_and_all_end_with_the_context():
    def work(number, connection):
        connection.send((number, os.getpid()))
        connection.send(connection.recv() ** 2)
        time.sleep(600)

    with forked(work, 3) as connections:
        told = [receive(each) for each in connections]
        for number, each in enumerate(connections):
            each.send(number + 5)
        assert [receive(each) for each in connections] == [25, 36, 49]
        pids = [pid for _, pid in told]
        assert [number for number, _ in told] == [0, 1, 2]
        assert len({os.getpid(), *pids}) == 4
        for pid in pids:  # what a cluster sends to all of a job's processes is for the one that they work for
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, number)
        assert not any(each.poll() for each in connections)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert cores() >= 1


def test_what_goes_wrong_is_raised_here():
    def fails(number, connection):
        raise UserError("the disk is full")

    with forked(fails, 1) as (connection,), pytest.raises(UserError, match="the disk is full"):
        receive(connection)
    with forked(lambda number, connection: os._exit(1), 2) as connections:
        for connection in connections:
            with pytest.raises(RuntimeError, match="a process that worked beside this one was ended"):
                receive(connection)


def test_they_end_when_the_process_they_work_for_is_killed():
    def grandparent(number, connection):
        def work(number, up):
            up.send(os.getpid())
            up.recv()

        with forked(work, 2) as connections:
            connection.send([receive(each) for each in connections])
            time.sleep(600)

    # A daemon may have no children; this one is killed for certain below.
    with forked(lambda number, connection: _undaemoned(grandparent, connection), 1) as (connection,):
        pids = receive(connection)
    for pid in pids:
        for _ in range(600):
            if not _alive(pid):
                break
            time.sleep(0.1)
        assert not _alive(pid)


def _undaemoned(work, connection):
    import multiprocessing

    multiprocessing.current_process()._config["daemon"] = False
    work(0, connection)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
