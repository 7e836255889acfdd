"""A terminal that is closed, or a pipe that nobody reads any more, ends the work as other signals do."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from genpolicy.system.progress import Stderr
from genpolicy.system.signals import Interrupted, Signals

LISTENING = """
import contextlib, fcntl, sys, termios, time
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Interrupted, Signals
if sys.stdout.isatty():
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)  # which tells its processes that it is closed
with open(sys.argv[1], "w") as told, Signals() as signals:
    with contextlib.suppress(Interrupted), signals.deferred(), Progress() as progress:
        progress.say("begun")
        for _ in range(1000):
            time.sleep(0.01)
            progress.say("going on")
            signals.check()
    print("saved", flush=True)
    progress.say("saved")
    print(signals.received, file=told)
"""


@pytest.fixture(autouse=True)
def not_under_nohup():
    """Whoever runs the tests may have asked that SIGHUP be ignored, which processes inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_who_reads_the_output_is_gone(terminal, tmp_path):
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-c", LISTENING, str(tmp_path / "told")]
    child = subprocess.Popen(command, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    while b"begun" not in said:
        said += os.read(ours, 100)
    os.close(ours)
    assert child.wait(20) == 0
    assert (tmp_path / "told").read_text() == f"{int(signal.SIGHUP)}\n"


def test_nohup_is_heeded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            Stderr().on_broken_pipe()
        assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_interrupts():
    with pytest.raises(Interrupted) as end, Signals():
        signal.raise_signal(signal.SIGHUP)
    assert (end.value.code, end.value.signal) == (128 + signal.SIGHUP, "SIGHUP")
