"""What numbers must have in common to be compared: beyond the task, how it was used."""

from collections.abc import Callable, Mapping

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.option_content import given_settings
from genpolicy.runs.evaluations import as_text

OGBENCH, CRITICS = "ogbench-", "2"  # begins its tasks; Q functions in the papers' tables unless they say otherwise


def protocol(known: Callable[[str], str | None]) -> str:
    """How a run differs from the usual one: in chunks, n-step returns and training online; "" if in nothing.

    Also in the length of episodes and the simulator, which reference scores and published numbers are of, and in these
    scores, of a task that has some.
    On OGBench, whose tasks papers have used in several ways, in data, sparse rewards and critics, too.
    known: the option of a group, or the value of a setting as text, by its name; None if there is none.
    """
    ogbench = (known("env") or "").startswith(OGBENCH)
    data, critics = known("dataset") or "", known("critic.ensemble") or CRITICS
    chunk, steps = known("chunk.length") or "1", known("critic.steps") or "1"
    online = known("online.steps") or "0"
    words = _played(known) | _scored(known)
    words |= {
        data.removeprefix("ogbench_"): ogbench and data != "ogbench",
        "sparse": ogbench and known("dataset.sparse") == "true",
        f"chunks of {chunk}": chunk != "1",
        f"{steps}-step returns": steps != "1",
        f"{critics} critics": ogbench and critics != CRITICS,
        f"{online} steps online": online != "0",
    }
    return _listed(words)


def known_of(config: DictConfig, choices: Mapping[str, str]) -> Callable[[str], str | None]:
    """What `protocol` asks for, of a whole configuration and the options that it is composed of."""

    def known(name: str) -> str | None:
        value = choices.get(name, OmegaConf.select(config, name))
        return None if value is None else as_text(value)

    return known


def unscaled(config: DictConfig, choices: Mapping[str, str]) -> str:
    """Why normalised scores are not the benchmark's, though its reference returns are used; "" if they are.

    config, choices: as for `known_of`.
    """
    env, own = config.env, given_settings("env", choices["env"])
    if env.reference_min is None or any(env[name] != own.get(name) for name in ("reference_min", "reference_max")):
        return ""
    return _listed(_played(known_of(config, choices)))


def _listed(words: Mapping[str, bool]) -> str:
    return ", ".join(word for word, said in words.items() if said)


def _played(known: Callable[[str], str | None]) -> dict[str, bool]:
    """In words, whether episodes are of another length, or of another simulator, than the task's. known: as above."""
    limit, simulator = (_unusual(known, name) for name in ("max_episode_steps", "simulator"))
    return {f"episodes of {limit} steps": limit is not None, f"played in {simulator}": simulator is not None}


def _scored(known: Callable[[str], str | None]) -> dict[str, bool]:
    """In words, whether other returns than the task's make a score of 0 and of 100, or none do. known: as above."""
    usual = given_settings("env", known("env") or "")
    values = {name: known(f"env.{name}") for name in ("reference_min", "reference_max")}
    own = any(
        None not in (value, usual.get(name)) and value not in (as_text(usual[name]), as_text(float(usual[name])))
        for name, value in values.items()
    )
    low, high = values.values()
    return {"without scores" if "null" in (low, high) else f"scores from {low} to {high}": own}


def _unusual(known: Callable[[str], str | None], name: str) -> str | None:
    """The value of a setting of the task, if its option has another one. known: as above."""
    value, usual = known(f"env.{name}"), given_settings("env", known("env") or "").get(name)
    return None if value is None or usual is None or value == str(usual) else value


def subtask(known: Callable[[str], str | None]) -> str:
    """Which of the tasks of OGBench's data set it is, such as 'task 3'; "" for the default one. known: as above."""
    number = known("env.task") if (known("env") or "").startswith(OGBENCH) else None
    return "" if number in (None, "null") else f"task {number}"
