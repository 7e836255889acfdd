"""What git says of the code that runs."""

import subprocess
from pathlib import Path


def revision(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of a folder in a git repository, and whether files in it have changed since; None for what is none."""
    git = ["git", "-C", str(folder), "--no-optional-locks"]
    ask = {"capture_output": True, "text": True, "check": True, "timeout": 5}
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **ask).stdout.strip()
        return commit, bool(subprocess.run([*git, "status", "--porcelain", "."], **ask).stdout)
    except (OSError, subprocess.SubprocessError):  # an installed wheel has no repository
        return None, None
