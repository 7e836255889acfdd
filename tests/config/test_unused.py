"""Settings that a command gives and that mean nothing there: a line each, and the command is legal."""

import json

import pytest
from command_line import genpolicy, tried
from tiny import only_run, undrawn
from tiny import words as small

from genpolicy.system.console import remark

NO_CRITIC, NO_FLOW = "means nothing where an algorithm learns no critic", "means nothing where a model has no flow"


def said_of(*words):
    remark.cache_clear()
    result, started = tried("tuned=none", *words)
    assert result.code == 0, result.err
    assert started
    return result.err.splitlines()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("algo=edp algo.gradient_norm=null algo.clip_each_q=true", ["algo.clip_each_q: means nothing without"]),
        ("algo=edp algo.gradient_norm=1 algo.clip_each_q=true", []),
        ("algo=edp algo.gradient_norm=null", []),  # its option's own, not given
        (
            "algo=iql network.time_size=8 solver@likelihood=euler",
            [f"network.time_size: {NO_FLOW}", f"likelihood: {NO_FLOW}"],
        ),
        ("algo=gmpo network.time_size=8 solver.steps=3", []),
        (
            "algo=rlpd dataset=none online.offline_ratio=0.5 online.steps=9 online.start=1",
            ["online.offline_ratio: means nothing with dataset=none"],
        ),
        ("algo=qam critic.lagged_target=false", ["critic.lagged_target: means nothing where one optimiser trains all"]),
        ("algo=qam critic.lagged_target=true", []),  # as it is
        ("algo=qsm critic.lagged_target=false", ["critic.lagged_target: means nothing where one optimiser trains all"]),
        ("algo=dac critic.lagged_target=false", []),
        (
            "algo=bc model=trajectory network=ln_resnet network.dropout=0.2",
            ["network.dropout: means nothing where an obj"],
        ),
        ("algo=bc network=ln_resnet network.dropout=0.2", []),
        ("algo=iql network.dropout=0.1", []),
        ("algo=rlpd network.dropout=0.1", ["network.dropout: means nothing where no data are fitted"]),
        (
            "algo=gtp critic.expectile=0.7 algo.value_samples=4",
            ["algo.value_samples: means nothing where the critic lea"],
        ),
        ("algo=gtp algo.value_samples=4", []),
        ("algo=gtp critic.over_candidates=mean", ["critic.over_candidates: means nothing with critic.candidates=1"]),
        ("algo=gtp critic.v_layer_norm=false", ["critic.v_layer_norm: means nothing where a critic learns no V"]),
        ("algo=iql critic.layer_norm_first=true", ["critic.layer_norm_first: means nothing without critic.layer_norm"]),
        # A sweep may give what some of its algorithms take: once, whatever the values.
        ("-m algo=bc,gmpo critic.discount=0.9,0.95 seed=0,1", [f"critic.discount: {NO_CRITIC}"]),
        ("-m algo=bc,iql,gmpo solver=euler,rk4", [f"solver: {NO_FLOW}"]),
    ],
)
def test_what_is_given_and_means_nothing_is_said_once(words, said):
    found = said_of(*words.split())
    assert len(found) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(found, said, strict=True)), found


@pytest.mark.slow
def test_it_is_said_of_an_evaluation_too(tmp_path):
    common = ("algo=td3_bc", "algo.steps=4", "critic=double_q", "network=mlp", "eval.per_phase=1")
    words = [
        word
        for word in small(tmp_path, *common)
        if not word.startswith(("algo.critic", "algo.policy", "solver", "lik"))
    ]
    with undrawn():
        result = genpolicy(*words)
    assert (result.code, "means nothing" in result.err) == (0, False), result.err
    remark.cache_clear()
    short = ("eval.final_episodes=2", "eval.log_prob_actions=5", "tracking.uri=none")
    result = genpolicy("mode=eval", f"checkpoint={only_run(tmp_path)}", "solver.steps=3", *short)
    assert result.code == 0, result.err
    assert f"solver.steps: {NO_FLOW}" in result.err
    result = genpolicy("mode=eval", f"checkpoint={only_run(tmp_path)}", "solver=dpm", *short)
    assert f"solver: {NO_FLOW}" in result.err
    (record,) = only_run(tmp_path).glob("evaluation-*.json")
    assert not any(name.startswith("solver") for name in json.loads(record.read_text())["changed"])
