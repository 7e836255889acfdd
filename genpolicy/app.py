"""The command `genpolicy`: compose the configuration, check it, and start the mode it asks for.

Whatever is wrong with a command is one line on stderr and exit code 1; `genpolicy.debug=true` shows the
traceback.
"""

import importlib
import os
import sys
from dataclasses import replace

from genpolicy.config.arguments import remark_unused_conf
from genpolicy.runs.job import Job, each_job
from genpolicy.system.process import keep_freed_memory
from genpolicy.training import checks


def main() -> None:
    """Entry point of the console script; ends with exit code 0, 1 (an error) or 130 (Ctrl-C)."""
    words = sys.argv[1:]
    keep_freed_memory()
    try:
        _run(words)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if _wants_traceback(words):
            raise
        from genpolicy.config.compose import explain

        print(f"genpolicy: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _run(words: list[str]) -> None:
    if not {"-sc", "--shell-completion", "--version"} & {*words}:
        remark_unused_conf()
    if "--help" in words or "-h" in words:
        from genpolicy.config import help, plugins

        plugins.permit(words)
        help.show([word for word in plugins.without(words) if word not in ("--help", "-h")])
        return
    if "--version" in words:
        import importlib.metadata  # slow, and needed only here

        print("genpolicy", importlib.metadata.version("genpolicy"))
        return
    from genpolicy.config import compose

    if "-sc" in words or "--shell-completion" in words:
        compose.complete(words)
        return
    each_job(words, start)


def start(job: Job, sweep: str | None = None) -> None:
    """Does what the configuration's mode says. `sweep` names the multirun that the job belongs to."""
    if sweep is None:
        checks.check([job])
    importlib.import_module(f"genpolicy.modes.{job.config.mode}").run(replace(job, sweep=sweep))


def _wants_traceback(words: list[str]) -> bool:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return True
    return any(word.lower().lstrip("+") in ("genpolicy.debug=true", "genpolicy.debug=1") for word in words)


if __name__ == "__main__":
    main()
