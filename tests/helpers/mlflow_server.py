"""An MLflow server that can be stopped and started again, for the tests."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from patience import wait_until

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
QUIET |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that we have no work for


class Server:
    """On a port of this machine, with its database, artifacts and log in a folder."""

    def __init__(self, port: int, folder: Path):
        self.uri = f"http://127.0.0.1:{port}"
        self.folder, self.database, self.artifacts = folder, folder / "mlflow.db", folder / "served"
        self._process = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        command += ["--port", self.uri.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.artifacts)]
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=os.environ | QUIET
            )

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False

    def wait(self) -> None:
        """Until it answers."""
        wait_until(self.answers, lambda: (self.folder / "server.log").read_text())

    def stop(self) -> None:
        """At once, as if its machine had gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
