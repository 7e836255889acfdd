"""The legal options that messages list are those in conf/ and in the user's own ./conf."""

import re

import pytest
from command_line import genpolicy, tried

from genpolicy.config import legal
from genpolicy.config.arguments import CONF, options

pytestmark = pytest.mark.usefixtures("elsewhere")

REFUSED = {
    "algo=td3_bc model=gvp": "model",
    "algo=fql critic=in_support": "critic",
    "algo=qgpo model=trajectory": "model",
    "algo=gmpo critic=double_q": "critic",
    "algo=gmpg model=gaussian": "model",
    "algo=gmpg solver=sde": "solver",
    "algo=gmpo_softmax_fresh model=otcfm": "model",
    "algo=fql solver=sde": "solver",
    "algo=bc select=greedy": "select",
    "algo=gmpg_reinforce critic=in_support": "critic",
    "algo=bc solver=jumps": "solver",
    "algo=bc likelihood=dpm": "likelihood",
    "algo=bc objective=likelihood": "objective",
    "algo=srpo objective=trajectory model=trajectory solver=rk4": "objective",
}


@pytest.mark.slow
@pytest.mark.parametrize("words", REFUSED)
def test_what_is_said_to_be_legal_is_taken(words, tmp_path):
    """Every option that a message lists, and the user's own copy of one, passes that check; the others are refused."""
    group = REFUSED[words]
    message = genpolicy(*words.split()).err
    named = re.search(rf"legal: {group}=([\w|]+)", message)[1].split("|")
    placed = "solver" if group == "likelihood" else group
    assert named == [name for name in options(placed) if name in named]
    own = tmp_path / "conf" / placed / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((CONF / placed / f"{named[0]}.yaml").read_text())
    assert "mine" in re.search(rf"legal: {group}=([\w|]+)", genpolicy(*words.split()).err)[1].split("|")
    others = [word for word in words.split() if not word.startswith(f"{group}=")]
    for name in options(placed):
        said = tried(*others, f"{group}={name}")[0].err
        if name in named or name == "mine":
            assert not said.startswith(message.partition("legal: ")[0]), name
        else:
            assert said.startswith(f"genpolicy: {group}: "), name


def test_other_options_are_looked_at_only_when_one_is_refused(monkeypatch):
    monkeypatch.setattr(legal, "options", None)
    assert tried("algo=gmpg", "likelihood=rk4", "solver=euler")[0].code == 0
