"""Words that are nearly right: the message says the right one, and lists no more than a few."""

import pytest
from command_line import genpolicy, jobs
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.config.arguments import options
from genpolicy.errors import FEW, suggest

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("beta=4", "beta: no such setting; say algo.beta=4 or "),
        ("algo=bc beta=4", "beta: no such setting; say algo.beta=4 (algo=gmpg|"),
        ("policy_steps=1e4", "policy_steps: no such setting; say algo.policy_steps=1e4"),
        ("path=x.npz", "path: no such setting; say dataset.path=x.npz (dataset=hdf5|npz|rl_unplugged)"),
        ("-m beta=1,2", "beta: no such setting; say algo.beta=1,2 or "),
        ("beta=4 algo=nothing", "beta: no such setting; say algo.beta=4 (algo=gmpg|"),
        ("--seed 3", "--seed: no such flag; settings have no dashes; say seed=3"),
        ("--algo.beta=3", "--algo.beta=3: no such flag; settings have no dashes; say algo.beta=3"),
        ("--log-every 3", "--log-every: no such flag; settings have no dashes; say log_every=3"),
        ("--seed", "--seed: no such flag; settings have no dashes; say seed=<value>"),
        ("train", "'train' is not of the form key=value; say mode=train"),
        ("gmpo", "'gmpo' is not of the form key=value; say algo=gmpo"),
        ("env=pendulum-v1", "env=pendulum-v1: no such option; say env=gym env.id=Pendulum-v1"),
        ("env=Pendulum-v1", "env=Pendulum-v1: no such option; say env=gym env.id=Pendulum-v1"),
        (
            "env=hoper-medium-v2",
            "env=hoper-medium-v2: no such option; did you mean hopper-medium-v2? legal: hopper-med",
        ),
        (
            "dataset=npz dataset.path=a[1],b.npz",
            "cannot read 'dataset.path=a[1],b.npz'; text with commas or brackets is quoted, for the shell and in "
            "itself: 'dataset.path=\"a[1],b.npz\"'",
        ),
        (
            "dataset.path=\u00fc.npz",
            "cannot read 'dataset.path=\u00fc.npz'; text of other letters than a to z is quoted, ",
        ),
        ("-m env=locomotio", "env=locomotio: no such option; did you mean locomotion? legal: locomotion, "),
        ("dataset.path=a,b.npz", "dataset.path=a,b.npz: several values are a sweep; add -m; or quote one text: 'data"),
        ("algo.policy_steps=1.5e0", "algo.policy_steps: 1.5 is not of type int"),
        ("eval.episodes=1e21", "eval.episodes: 1000000000000000000000 must be <= 1000000"),
        ("threads=1e11", "threads: 100000000000 must be <= 4096"),
        ("network.hidden=[99999999999999]", "network.hidden: 99999999999999 must be <= 16384"),
        ("likelihood.steps=1e23", "likelihood.steps: 99999999999999991611392 must be <= 100000"),
        ("mode=collect collect.at_once=1e8", "collect.at_once: 100000000 must be <= 10000"),
        (f"seeds={','.join(map(str, range(1001)))}", "seeds: 1001 items; at most 1000"),
        ("-m hydra/launcher=local launch.minutes=soon", "launch.minutes: 'soon' is not of type int"),
        ("-m hydra/launcher=local launch.minutes=30s", "launch.minutes: 0.5 is not of type int"),
    ],
)
def test_what_was_meant_is_said(words, message, tmp_path):
    result = genpolicy(*words.split())
    assert (result.code, result.err.count("\n"), list(tmp_path.iterdir())) == (1, 1, [])
    assert result.err.startswith(f"genpolicy: {message}"), result.err
    assert len(result.err) < 500


def test_a_quoted_path_is_what_the_message_says(tmp_path):
    (tmp_path / "a[1],b.npz").touch()
    [(job, _)] = jobs("env=gym", "env.id=Pendulum-v1", "dataset=npz", 'dataset.path="a[1],b.npz"')
    assert job.config.dataset.path == str(tmp_path / "a[1],b.npz")


def test_numbers_and_times_as_people_write_them():
    [(job, _)] = jobs("algo.policy_steps=1e4", "network.hidden=[1e2,64]", "checkpoint_seconds=2m")
    assert (job.config.algo.policy_steps, list(job.config.network.hidden)) == (10_000, [100, 64])
    assert job.config.checkpoint_seconds == 120
    for time, minutes in {"2h": 120, "1d": 1440, "90m": 90, "1:30:00": 90, "1-00:30:00": 1470, "1d12h": 2160}.items():
        [(job, _)] = jobs("-m", "hydra/launcher=local", f"launch.minutes={time}")
        assert job.config.launch.minutes == minutes


@given(word=st.text("abcdehopr-v2", min_size=1, max_size=20), count=st.integers(0, 40))
def test_no_message_lists_more_than_a_few_names(word, count):
    legal = list(options("env"))[:count]
    said = suggest(word, legal, "env")
    assert sum(name in said.partition("legal: ")[2].replace(" and ", ", ").split(", ") for name in legal) == min(
        count, FEW
    )
    assert ("genpolicy --help env shows all" in said) == (count > FEW)


def test_the_module_is_the_command(tmp_path):
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "genpolicy", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("genpolicy ")
