"""The worked examples of docs/examples/: their code and commands, in order, in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import genpolicy

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
# Of a run, what takes long: the commands are tried as they are but for these.
SMALL = ["budget=0.001", "eval.final_episodes=2", "eval.episodes=1", "eval.per_phase=2", "eval.log_prob_actions=20"]
SMALL += ["network.hidden=[16]", "critic.hidden=[16]", "tracking.uri=none"]
SMALL += ["env.max_episode_steps=40", "solver.steps=2", "likelihood.steps=2"]


def tried(line: str) -> list[str]:
    """The words of a command, with less to do where it trains."""
    words = shlex.split(line)[1:]
    return [*words, *(["tracking.uri=none"] if any(word.startswith("mode=") for word in words) else SMALL)]


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere", "no_figures")
def test_three_methods_are_compared_on_ones_own_data():
    text = (EXAMPLES / "compare.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block.replace("range(100)", "range(6)"), "compare.md", "exec"), {})
    commands = re.findall(r"^    (genpolicy .*)$", text, re.MULTILINE)
    assert len(commands) == 5
    for line in commands:
        result = genpolicy(*tried(line))
        assert result.code == 0, result.err
        if "mode=report" in line:
            study = line.partition("study=")[2]
            page = Path("outputs", study, "report", "report.html").read_text()
            assert "has the highest IQM of returns on Pendulum-v1" in page
            assert "The 95 % interval of the difference" in page
    assert "Score against algo.alpha: fql" in page
    assert "Expected best after n configurations" in page
