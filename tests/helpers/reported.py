"""Results of runs that were never made, and what a report says of them, for the tests."""

from genpolicy.report.contents import compose
from genpolicy.report.document import Document, Picture, Table
from genpolicy.report.results import Result
from genpolicy.report.sources import Source

SETTINGS = {"algo.beta": "1.0", "solver.steps": "8", "device": "cpu"}


def result(algo="gmpo", task="hopper-medium-v2", seed=0, score=50.0, state="finished", **more) -> Result:
    choices = {"algo": algo, "model": "gvp", "env": task, "solver": "midpoint", "dataset": "d4rl"} | more.pop(
        "choices", {}
    )
    settings = SETTINGS | more.pop("settings", {})
    metrics = {} if score is None else {"final/score_mean": score, "best/score_mean": score + 5, "final/log_prob": -1.0}
    facts = {
        "number": f"{algo}{task}{seed}",
        "directory": "",
        "created": 0,
        "reason": "",
        "commit": "0" * 40,
    } | more
    return Result(seed=seed, state=state, choices=choices, settings=settings, metrics=metrics, **facts)


def document(*results: Result, history=lambda number, metric: [], **more) -> Document:
    return compose(Source("a store", list(results), [], history), "a study", **more)


def logged(*pairs, every=1000):
    """Entries of a metric, of which each step took so many milliseconds."""
    return [(step, value, every * step) for step, value in pairs]


def table(made: Document, name: str) -> dict[tuple[str, str], str]:
    """(row, column) -> cell of a table."""
    (part,) = (part for part in made.parts if isinstance(part, Table) and part.name == name)
    return {(row[0], column): cell for row in part.rows for column, cell in zip(part.head[1:], row[1:], strict=True)}


def cell(made: Document, task: str, method: str) -> str:
    """What the table of last checkpoints says, whichever way it lies."""
    cells = table(made, "scores_last")
    return cells.get((task, method)) or cells[method, task]


def said(made: Document) -> str:
    return "\n".join(line for part in made.parts if part.name == "remarks" for line in part.lines)


def lines(made: Document, name: str) -> str:
    """The lines of a text."""
    return "\n".join(line for part in made.parts if part.name == name for line in part.lines)


def picture(made: Document, name: str) -> Picture:
    """The picture with this name, of a choice, too."""
    (found,) = (each for each in made.pictures() if each.name == name)
    return found
