"""The command `genpolicy`: compose the configuration, check it, and start the mode it asks for.

Whatever is wrong with a command is one line on stderr and exit code 1; `genpolicy.debug=true` shows the
traceback.
"""

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from genpolicy import command, plugins
from genpolicy.errors import UnknownSetting, UserError
from genpolicy.evaluation import CHOSEN
from genpolicy.root import CheckSettings, CollectSettings, TrainSettings, absolute, run_settings
from genpolicy.run import absolute_uri, directory_of, each_seed
from genpolicy.settings import TARGET, build, check, locate, suggest

PRESETS = ("tuned", "experiment")  # groups whose options set what belongs to others
COMPONENTS = {"check": CheckSettings, "collect": CollectSettings}


def main() -> None:
    """Entry point of the console script; ends with exit code 0, 1 (an error) or 130 (Ctrl-C)."""
    words = sys.argv[1:]
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
        from genpolicy.compose import explain

        print(f"genpolicy: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _run(words: list[str]) -> None:
    if "--help" in words or "-h" in words:
        from genpolicy import help

        help.show([word for word in words if word not in ("--help", "-h")])
        return
    if "--version" in words:
        print("genpolicy", importlib.metadata.version("genpolicy"))
        return
    from genpolicy import compose

    if "-sc" in words or "--shell-completion" in words:
        compose.run(words, lambda config: None)
        return
    each_job(words, start)


@dataclass(frozen=True)
class Job:
    """One checked configuration, ready to start."""

    config: DictConfig
    choices: dict[str, str]
    overrides: list[str]


def each_job(words: list[str], act: Callable[[Job], None]) -> None:
    """Composes and checks the job of a command line, and acts on it; a sweep's go to its launcher.

    Raises whatever goes wrong.
    """
    from genpolicy import compose

    words = command.rewrite(words)
    command.check_once(words)
    plugins.permit(words)
    if "mode=eval" in words:  # where the task is the run's, and the word is a permission
        words = [word for word in words if not word.startswith(plugins.WORDS)]
    compose.check_words(words)
    failures = []

    def task(config: DictConfig) -> None:
        try:
            act(prepare(*compose.take_choices(config, words)))
        except Exception as error:
            failures.append(error)

    compose.run(words, task)
    if failures:
        raise failures[0]


def prepare(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Job:
    """Checks a composed configuration and resolves its paths; creates nothing.

    Modes other than train read no component but those of `COMPONENTS`: their configuration holds nothing else. But that
    of mode=eval has what the words say of `evaluation.CHOSEN`, to be checked with the run that it is for.
    """
    from genpolicy import option_files  # which imports Hydra

    checked = run_settings(config)
    tops = {word: re.split(r"[=.@/]", word.lstrip("+~"))[0] for word in overrides}
    for word, top in tops.items():
        if top in ("check", "collect", "report") and top != checked.mode:
            raise UserError(f"{word}: goes with mode={top}")
    if checked.mode == "train":
        try:
            checked = check(config, choices, root=TrainSettings)
        except UnknownSetting as error:
            presets = [f"{group}={choices[group]}" for group in PRESETS if choices.get(group, "none") != "none"]
            if presets and not any(error.name == word.lstrip("+").partition("=")[0] for word in overrides):
                raise UserError(f"{error}; it comes from {' or '.join(presets)}") from error
            raise
        if checked.seeds and "seed" in tops.values():
            raise UserError("seed and seeds do not go together; leave one out")
    else:
        if checked.mode in COMPONENTS:
            checked = run_settings(config, COMPONENTS[checked.mode], choices)
        legal = [*checked, *CHOSEN] if checked.mode == "eval" else list(checked)
        for word, top in tops.items():
            if top not in legal:
                raise UserError(f"{word}: mode={checked.mode} takes no such setting; {suggest(top, legal, 'settings')}")
        if checked.mode == "eval":
            checked = OmegaConf.merge(checked, _chosen(config, overrides))
    option_files.check_said(checked, overrides)
    checked.tracking.uri = absolute_uri(checked.tracking.uri)
    for name, path in checked.paths.items():
        checked.paths[name] = absolute(path)
    if "path" in checked.get("dataset", ()):
        checked.dataset.path = absolute(checked.dataset.path)
    if checked.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    return Job(checked, choices, overrides)


def _chosen(config: DictConfig, overrides: Sequence[str]) -> dict:
    """What words of mode=eval say of `CHOSEN`: a whole node where an option is chosen, else the values of settings."""
    found: dict = {}
    for key in (word.lstrip("+~").partition("=")[0] for word in overrides):
        group, dot, _ = key.rpartition("@")[2].partition(".")
        if group in CHOSEN and not dot:
            found[group] = OmegaConf.to_container(config[group], resolve=True)
    for key in (word.lstrip("+~").partition("=")[0] for word in overrides):
        group, *path = key.split(".")
        if path and group in CHOSEN and TARGET not in (node := found.setdefault(group, {})):
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = OmegaConf.select(config, key)
    return found


def check_data(jobs: Sequence[Job]) -> None:
    """Probes the data of runs that are to be made (`Dataset.probe`), each once; raises `UserError` for bad ones."""
    training = [job for job in jobs if job.config.mode == "train"]
    if not training:
        return
    from genpolicy.dataset.dataset import Dataset  # which imports torch

    probed = set()
    for job in training:
        config = job.config
        if locate(config.dataset._target_).probe is Dataset.probe:
            continue
        node = json.dumps([OmegaConf.to_container(config[name]) for name in ("env", "dataset")], sort_keys=True)
        if node not in probed and not all(directory_of(each, job.choices).exists() for each in each_seed(config)):
            probed.add(node)
            build(config.dataset, directory=config.paths.data).probe(build(config.env))


def check_memory(jobs: Sequence[Job], there: float | None = None) -> None:
    """Raises `UserError` if networks to be trained do not fit into so many bytes; None: those of this machine."""
    from genpolicy import memory

    memory.check([job for job in jobs if job.config.mode == "train"], there)


def start(job: Job, sweep: str | None = None) -> None:
    """Does what the configuration's mode says. `sweep` names the multirun that the job belongs to."""
    config = job.config
    if sweep is None:
        check_memory([job])
        check_data([job])
    match config.mode:
        case "train" if config.seeds:
            from genpolicy import seeds

            seeds.train(config, job.choices, sweep)
        case "train":
            from genpolicy import run, train

            train.train(run.open_run(config, job.choices, sweep))
        case "eval":
            from genpolicy import train

            train.evaluate_run(config.checkpoint, config, job.choices)
        case "sync":
            from genpolicy import tracking

            tracking.sync(config)
        case "status":
            from genpolicy import status

            status.show(config)
        case "report":
            from genpolicy.report import report

            report.show(config)
        case "tasks":
            from genpolicy import tasks

            tasks.show(config)
        case "check":
            from genpolicy import fidelity

            fidelity.show(config)
        case "collect":
            from genpolicy import collect

            collect.collect(config)


def _wants_traceback(words: list[str]) -> bool:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return True
    return any(word.lower().lstrip("+") in ("genpolicy.debug=true", "genpolicy.debug=1") for word in words)


if __name__ == "__main__":
    main()
