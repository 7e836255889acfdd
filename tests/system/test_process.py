"""Processes that are started, and the memory of this one, which the C library gives back to the system or keeps."""

import subprocess
import sys

from genpolicy.system import process

CODE = """
import resource
from genpolicy.system.process import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for _ in range(3):
    before, blocks = faults(), [bytearray(2**22) for _ in range(16)]
    del blocks
print(faults() - before)
"""


def test_folders_of_modules_are_those_of_the_command_s_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("print('found')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    assert process.start("mine", log=tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text() == "found\n"


def test_memory_that_was_freed_is_used_again():
    """64 MiB are 16,384 pages."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 100
    without = subprocess.run(
        [sys.executable, "-c", CODE.replace("\nkeep_freed_memory()", "")], capture_output=True, text=True, check=True
    )
    assert int(without.stdout) > 1000
