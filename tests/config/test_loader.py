"""What genpolicy composes, and how: as Hydra composes it from the start, whatever was composed before."""

import os
import random
import shlex

import pytest
from command_line import genpolicy, tried
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genpolicy.config.arguments import CONF, options
from genpolicy.config.compose import hydra_words
from genpolicy.config.loader import Loader, _Packaged
from genpolicy.config.nodes import created, packed, unpacked

EACH = 20  # jobs that are drawn
GROUPS = ("algo", "model", "solver", "env", "dataset", "critic", "network", "select", "objective")
VALUES = shlex.split("""
    seed=3 study=x budget=0.5 log_every=7 eval.episodes=3 eval.steps=[1,2,4] algo.beta=2.5 algo.lr=1e-4 critic.hidden=[]
    network.hidden=[16,16] algo={beta:3,nested:{more:[1,{x:2}]}} +algo.new=1 ++algo.new.below=${seed} eval={episodes:3}
    +launch.extra.nice=3 ~algo._target_ ~solver tracking=null device=null study=a${seed} critic=${algo} seeds=[1,2]
    algo.policy_steps=${algo.critic_steps} paths.data=${paths.outputs}/x model.path.x.y=??? study="'a, b'"
    solver.steps=0x10
""")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder whose ./conf adds options, and has one of genpolicy's replaced."""
    files = {
        "algo/mine": "defaults: [gmpo, override /model@_global_.model: icfm, _self_]\nbeta: 5\n"
        "nested: {a: 1, list: []}\n",
        "model/gvp": "defaults: [/model/vpsde@_here_, _self_]\nnote: ${seed}\n",
        "experiment/quick": "# @package _global_\ndefaults: [override /network: mlp]\nlog_every: 3\nalgo: {x: 1}\n",
        "tuned/mine/hopper-medium-v2": "# @package _global_\nalgo: {beta: 9, nested: {b: 2}}\nnetwork: {hidden: [8]}\n",
    }
    for name, text in files.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(draw: random.Random) -> list[str]:
    """The words of a job: some options, among them the user's own, and some values."""
    words = []
    for group in draw.sample(GROUPS, draw.randrange(5)):
        words.append(f"{group}={draw.choice(sorted(options(group)))}")
    words += draw.choice([[], [], [f"solver@likelihood={draw.choice(sorted(options('solver')))}"]])
    words += draw.choice([[], ["tuned=none"], [f"tuned={draw.choice(sorted(options('tuned')))}"], ["~tuned"]])
    words += draw.choice([[], ["experiment=short"], ["experiment=[short,quick]"], ["experiment=null"], ["~experiment"]])
    words += draw.choice([[], ["algo=mine", "env=hopper-medium-v2"]]) if not words else []
    words += draw.sample(VALUES, draw.randrange(4))
    draw.shuffle(words)
    return words


def from_the_start(words: list[str]) -> tuple[object, dict]:
    """What Hydra makes of the words, without its own part: plain values or an exception's text, and the choices."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides=words, return_hydra_config=True)
    except Exception as error:
        return f"{type(error).__name__}: {error} {error.__cause__ or ''}", {}
    choices = {group: option for group, option in config.hydra.runtime.choices.items() if group[:6] != "hydra/"}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=False), choices


def quickly(loader: Loader, words: list[str]) -> tuple[object, dict]:
    try:
        config, choices = loader.job(words)
    except Exception as error:
        return f"{type(error).__name__}: {error} {error.__cause__ or ''}", {}
    return OmegaConf.to_container(config, resolve=False), choices


@pytest.mark.slow
def test_a_job_is_what_hydra_composes_from_the_start(folder):
    draw, loader, composed = random.Random(0), Loader(), 0
    for _ in range(EACH):
        words = hydra_words(drawn(draw))
        expected = from_the_start(words)
        assert quickly(loader, words) == expected, words
        assert quickly(loader, words) == expected, (words, "again")
        composed += isinstance(expected[0], dict)
    assert EACH / 3 < composed < EACH  # the others are refused, in the same words


def test_genpolicys_own_files_are_read_as_omegaconf_reads_them():
    files = sorted(path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] in (*GROUPS, "tuned"))
    source = _Packaged("main", str(CONF))
    for file in files:
        found = source.load_config(str(file.relative_to(CONF))).config
        plain, expected = (OmegaConf.to_container(config, resolve=False) for config in (found, OmegaConf.load(file)))
        assert repr(plain) == repr(expected), file  # which tells 1, 1.0 and "1" apart
    assert len(files) > 100


def test_jobs_of_one_loader_share_nothing(folder):
    loader = Loader()
    first, _ = loader.job(["algo=mine"])
    before = OmegaConf.to_container(first)
    first.algo.nested.a = 7
    first.algo.nested.list.append(3)
    loader.job(["algo=mine", "++algo.nested.a=8"])
    assert OmegaConf.to_container(loader.job(["algo=mine"])[0]) == before


def test_a_file_that_has_changed_is_read_anew(folder):
    file, words = folder / "conf" / "algo" / "mine.yaml", ["algo=mine"]
    assert Loader().job(words)[0].algo.beta == 5
    state = file.stat()
    file.write_text(file.read_text().replace("beta: 5", "beta: 6"))
    assert Loader().job(words)[0].algo.beta == 6
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert Loader().job(words)[0].algo.beta == 6
    file.unlink()
    (file.parent / "gmpo.yaml").write_text("_target_: genpolicy.algo.gmpo.GMPO\nbeta: 1\n")
    assert Loader().job(["algo=gmpo", "tuned=none"])[0].algo.beta == 1
    assert "algo=mine: no such option" in genpolicy("algo=mine").err
    other = folder / "elsewhere"
    other.mkdir()
    os.chdir(other)
    assert Loader().job(["algo=gmpo", "tuned=none"])[0].algo.get("beta") != 1


@pytest.mark.parametrize("quote", ["'", ""])
def test_a_word_of_hydras_own_configuration_means_the_job(quote):
    words = [f"study={quote}${{hydra:runtime.choices.algo}}-${{hydra:job.num}}{quote}", "algo=bc,gmpo", "seed=0"]
    result, started = tried("-m", *words)
    assert result.code == 0, result.err
    assert [job.config.study for job, _ in started] == ["bc-0", "gmpo-1"]


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_who_launches_cannot_be_left_out(flags):
    result = genpolicy(*flags, "~hydra/launcher")
    assert result.err == "genpolicy: ~hydra/launcher: cannot be left out; choose one, as in hydra/launcher=<option>\n"


def test_a_value_may_be_that_of_an_option():
    ((job, _),) = tried("study=${env.name}")[1]
    assert job.config.study == "maze2d-umaze-v1"


def test_hydra_composes_a_command_once(monkeypatch):
    """Neither the words of a run nor those of a sweep's launcher are composed twice."""
    composed = []
    monkeypatch.setattr(Loader, "_compose_config_from_defaults_list", spy(composed))
    assert tried("algo=bc")[0].code == 0
    assert len(composed) == 1
    composed.clear()
    assert tried("-m", "algo=bc,gmpo", "seed=0,1,2")[0].code == 0
    assert len(composed) == 3  # who launches, and each algorithm


def spy(calls: list):
    original = Loader._compose_config_from_defaults_list

    def composed(self, *arguments, **named):
        calls.append(arguments)
        return original(self, *arguments, **named)

    return composed


@pytest.mark.parametrize(
    "value", [1, True, 1.0, -0.0, 0.0, None, "1", float("nan"), [], [1], [True], [1.0], {}, {"x": 1}]
)
def test_nodes_are_those_of_omegaconf(value):
    for known in (0, 1, 1.0, True, None, "1", [], [1], {}, {"x": 1}, {"x": 1.0}):
        created({"a": {"b": known}, "c": 2})
        plain = {"a": {"b": value}, "c": 2}
        assert repr(OmegaConf.to_container(created(plain))) == repr(plain)
        assert repr(created(plain)) == repr(OmegaConf.create(plain))
        assert type(created(plain).a._get_node("b")) is type(OmegaConf.create(plain).a._get_node("b"))


def test_a_copy_is_a_config_of_its_own():
    node = OmegaConf.create({"a": {"b": "${c}"}, "c": [1]})
    OmegaConf.set_struct(node, True)
    copy = unpacked(packed(node))
    copy.c.append(2)
    assert (copy.a.b, node.c, OmegaConf.is_struct(copy)) == ([1, 2], [1], True)
