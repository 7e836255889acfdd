"""On OGBench, what numbers must have in common to be compared: papers have used its tasks in several ways."""

from collections.abc import Callable

OGBENCH, CRITICS = "ogbench-", "2"  # begins its tasks; Q functions in the papers' tables unless they say otherwise


def protocol(known: Callable[[str], str | None]) -> str:
    """How a run differs from FQL's tables: in data, sparse rewards, critics, chunks. "" if in nothing.

    known: the option of a group, or the value of a setting as text, by its name; None if there is none.
    """
    if not (known("env") or "").startswith(OGBENCH):
        return ""
    chunk, steps = known("chunk.length") or "1", known("critic.steps") or "1"
    data, critics = known("dataset") or "", known("critic.ensemble") or CRITICS
    words = {
        data.removeprefix("ogbench_"): data != "ogbench",
        "sparse": known("dataset.sparse") == "true",
        f"{critics} critics": critics != CRITICS,
        f"chunks of {chunk}": chunk != "1",
        f"{steps}-step returns": steps != "1",
    }
    return ", ".join(word for word, said in words.items() if said)


def subtask(known: Callable[[str], str | None]) -> str:
    """Which of the tasks of OGBench's data set it is, such as 'task 3'; "" for the default one. known: as above."""
    number = known("env.task") if (known("env") or "").startswith(OGBENCH) else None
    return "" if number in (None, "null") else f"task {number}"
