"""Options and settings of all groups in pairs: what a job is checked against is what it composes, never a default."""

from pathlib import Path

import pytest
from command_line import genpolicy, jobs, tried
from omegaconf import OmegaConf

from genpolicy.config.arguments import groups, options
from genpolicy.config.option_content import all_settings

# Sweeps with a setting that each job has, and the default options of the groups have not.
LEGAL = [
    # of the group that varies
    "algo=fql,gtp algo.steps=3",
    "algo=gtp_linear_q,td3_bc algo.eta=3",
    "model=edm,trajectory model.path.sigma_max=70 algo=bc",
    "objective=shortcut,shortcut objective.bootstrap=0.25 model=trajectory algo=bc",
    "solver=jumps,renoise solver.steps=4 model=trajectory algo=gtp_bc",
    "critic=double_q,double_q critic.candidates=4 algo=diffusion_ql,td3_bc",
    "select=greedy,softmax select.num_candidates=4 algo=gmpo,idql",
    "env=gym,gym dataset=npz dataset.path=mine.npz env.id=Pendulum-v1",
    "dataset=npz,hdf5 dataset.path=mine.npz env=gym env.id=Pendulum-v1",
    "network=residual,residual network.condition_hidden=64",
    "likelihood=dopri5,dopri5 likelihood.rtol=0.001",
    # of a group that an option of the one that varies chooses
    "algo=fql,td3_bc critic.candidates=2",
    "algo=gtp,consistency_ac model.path.sigma_max=70",
    "algo=iql,awr model.log_std_max=1",
    "algo=gtp,gtp_bc objective.flow_weight=2",
    "env=hopper-medium-v2,walker2d-medium-v2 network.condition_hidden=64",
    "env=multi-goal,maze2d-medium-v1 dataset.episodes=7",
    "model=edm,edm objective.log_ratio_mean=-1 algo=bc,gmpo",
    # beside what varies
    "experiment=null,short algo=fql algo.alpha=3",
    "tuned=none,fql/hopper-medium-v2 algo=fql algo.alpha=3",
    "model=gvp,icfm critic=in_support critic.beta=2 algo=idql",
    "network=mlp,residual select=softmax select.beta=2 algo=gmpo",
    "algo=gmpo,idql env=gym env.id=Pendulum-v1 dataset=npz dataset.path=mine.npz",
]


@pytest.fixture(autouse=True)
def mine(elsewhere, tmp_path):
    """The file that the commands name."""
    (tmp_path / "mine.npz").touch()


@pytest.mark.slow
@pytest.mark.parametrize("words", LEGAL)
def test_a_setting_that_the_jobs_have_is_legal(words):
    for job, _ in jobs("-m", *words.split()):
        for word in words.split():
            key, _, value = word.partition("=")
            if "." in key:
                assert str(OmegaConf.select(job.config, key)).removesuffix(".0").endswith(value)
            elif "," in value:
                assert job.choices.get(key, "null") in value.split(",")


def test_every_group_is_tried():
    assert {word.partition("=")[0] for words in LEGAL for word in words.split()} >= {*groups(), "likelihood"} - {
        "cluster"
    }


def test_a_search_over_options_takes_settings_that_these_have():
    started = jobs("-m", "hydra/sweeper=optuna", "algo=fql,gtp", "algo.steps=int(interval(3,5))", "search.trials=2")
    assert {job.choices["algo"] for job, _ in started} <= {"fql", "gtp"}
    assert all(3 <= job.config.algo.steps <= 5 for job, _ in started)
    result = genpolicy("-m", "hydra/sweeper=optuna", "algo=fql,gmpo", "algo.steps=int(interval(3,5))", "study=other")
    assert "algo.steps: algo=gmpo has no such setting; give it to a sweep over algo=fql alone" in result.err
    assert not Path("outputs/other").exists()


def lacking() -> list[tuple[str, str, list[str], list[str]]]:
    """Settings that some options of a group have, with those that have it and those that lack it."""
    names = {"algo": ("steps", "weight_clamp"), "solver": ("recompute", "rtol"), "likelihood": ("recompute",)}
    names |= {"critic": ("beta",), "select": ("beta", "num_candidates"), "network": ("observation_hidden",)}
    found = []
    for group, chosen in names.items():
        legal = options("solver" if group == "likelihood" else group)
        for name in chosen:
            have = {
                each: name in all_settings(path, "solver" if group == "likelihood" else group)
                for each, path in legal.items()
            }
            found.append(
                (group, name, [each for each in have if have[each]], [each for each in have if not have[each]])
            )
    return found


FEW = 2  # of the options that have a setting, and of those that lack it


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name", "have", "lack"), lacking(), ids=lambda value: str(value)[:30])
def test_a_setting_that_some_jobs_lack_is_refused_with_their_options(group, name, have, lack):
    have, lack = have[:FEW], lack[:FEW]
    legal = {"recompute": "true", "rtol": 0.01}.get(name, 2)
    words = [f"{group}.{name}={legal}"]
    words += ["algo=gmpo"] if group == "select" else []
    result = genpolicy("-m", f"{group}={','.join([*lack, *have])}", *words, "seed=0,1")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith(f"genpolicy: {group}.{name}: {group}={'|'.join(lack)} ha")
    assert f"no such setting; give it to a sweep over {group}={'|'.join(have)} alone" in result.err
    alone = genpolicy(f"{group}={lack[0]}", *words)
    assert alone.err.startswith(f"genpolicy: {group}.{name}: {group}={lack[0]} has no such setting; ")


def test_what_the_papers_values_set_and_an_algorithm_lacks_is_said_to_be_theirs():
    result = genpolicy("algo=bc", "tuned=gmpo/hopper-medium-v2")
    assert "has no such setting; " in result.err
    assert "it comes from tuned=gmpo/hopper-medium-v2" in result.err
    assert result.err.endswith("; tuned=none leaves it out\n")


def test_a_job_given_twice_is_done_once():
    result, started = tried("-m", "algo=gmpo,gmpo", "algo.beta=1,1.0,2")
    assert [job.config.algo.beta for job, _ in started] == [1.0, 2.0]
    assert "4 of 6 jobs say the same as another one; each is done once" in result.out
