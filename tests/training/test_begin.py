"""Runs that go on from shorter ones, or begin with parts of others."""

import json
import shutil

import pytest
import torch
from command_line import genpolicy, jobs
from tiny import only_run, records, same, words

from genpolicy.algo.algorithm import assemble
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs, open_run
from genpolicy.training import initial
from genpolicy.training import train as training
from genpolicy.training.extending import _late_mean_lost, reason_against
from genpolicy.training.sharing import evaluations

pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = ("algo.critic_steps=40", "algo.policy_steps=60")


def train(outputs, *more: str):
    said = genpolicy(*words(outputs, *SHORT, *more))
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of GMPO, which has a critic."""
    outputs = tmp_path_factory.mktemp("begin")
    train(outputs)
    return outputs


def longer_than(outputs, steps: int):
    """The run of so many updates of the policy."""
    found = [run for run in find_runs(outputs) if f"policy_steps: {steps}\n" in (run / "config.yaml").read_text()]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("shorter", "longer", "alike", "lacking"),
    [(90, 100, True, 80), (80, 100, True, None), (80, 100, False, 80), (50, 100, False, None), (85, 100, True, 80)],
)
def test_a_run_that_would_lose_its_late_mean_begins_anew(shorter, longer, alike, lacking):
    [(job, _)] = jobs("algo=bc", "env=multi-goal", "tuned=none", f"algo.behaviour_steps={longer}", "eval.per_phase=10")
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    reason = _late_mean_lost(job, algorithm, shorter, alike)
    assert reason == (lacking and f"it was not evaluated after {lacking} updates, as the late mean needs")
    job.config.eval.per_phase = 5
    assert _late_mean_lost(job, algorithm, shorter, alike) is None


def test_a_longer_last_phase_goes_on_where_the_shorter_one_ended(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "both")
    said = train(tmp_path / "both", "algo.policy_steps=150")
    assert "goes on from gmpo-gvp-" in said.err
    assert "after 60 updates of the last phase" in said.err
    train(tmp_path / "alone", "algo.policy_steps=150", "phases.reuse=false")
    run, alone = longer_than(tmp_path / "both", 150), only_run(tmp_path / "alone")
    left, right = (checkpoint.load(each / "last.pt") for each in (run, alone))
    assert same(left["algorithm"], right["algorithm"])
    assert same(left["generators"], right["generators"])
    final = [{record for record in records(each) if record[0].startswith("final/")} for each in (run, alone)]
    assert final[0] == final[1]  # not so the best, which is of other moments
    assert max(step for name, step, _ in records(run) if name == "policy/loss" and step <= 100) == 100
    assert json.loads((run / "status.json").read_text())["extends"].startswith("gmpo-gvp-")
    assert longer_than(tmp_path / "both", 60)  # which stays


def test_the_phase_that_goes_on_is_the_longer_runs_own(tmp_path):
    short = words(tmp_path, "algo=bc", "eval.per_phase=1", "eval.final_episodes=1")
    short = [word for word in short if not word.startswith(("algo.", "critic."))] + ["algo.behaviour_steps=4"]
    assert genpolicy(*short).code == 0
    said = genpolicy(*short, "algo.behaviour_steps=8")
    assert "goes on from bc-gvp-" in said.err
    assert "trained in" not in said.out
    (run,) = (run for run in find_runs(tmp_path) if "behaviour_steps: 8\n" in (run / "config.yaml").read_text())
    assert "behaviour" not in json.loads((run / "status.json").read_text()).get("phases", {})


def test_evaluations_that_were_made_otherwise_are_not_a_longer_runs(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    said = train(tmp_path, "algo.policy_steps=80", "eval.episodes=3", "eval.per_phase=4")
    assert "after 60 updates of the last phase; its evaluations were made otherwise, and are left out" in said.err
    run = longer_than(tmp_path, 80)
    evaluated = {step for name, step, _ in records(run) if name == "eval/return_mean"}
    assert evaluated == {120}  # the shorter run's were after 60, 80 and 100, of 40 of the critic and 60 of the policy
    (best,) = (value for name, _, value in records(run) if name == "best/update")
    assert best == 120
    assert checkpoint.load(run / "best.pt")["state"]["best"]["update"] == 120


def test_how_a_policy_is_guided_makes_other_evaluations():
    configs = [jobs("algo=qgpo", f"algo.guidance_scale={scale}")[0][0].config for scale in (1, 2)]
    assert evaluations(configs[0]) != evaluations(configs[1])


def test_a_one_step_policy_of_other_activations_is_refused(tmp_path):
    fql = words(tmp_path, "algo=fql", "algo.steps=4", "critic=double_q_gelu", "critic.hidden=[16]")
    fql = [word for word in fql if not word.startswith(("algo.critic", "algo.policy"))]
    assert genpolicy(*fql).code == 0
    said = genpolicy(*fql, f"init.policy={only_run(tmp_path)}", "algo.policy_activation=relu")
    assert said.code == 1
    assert "init.policy: has another algo: policy_activation; give this run the same" in said.err


@pytest.mark.parametrize(
    ("word", "alike"),
    [
        ("eval.final_episodes=9", True),
        ("eval.steps=[1,2]", True),
        ("algo.policy_lr=0.1", True),
        ("eval.episodes=9", False),
        ("eval.log_prob_actions=9", False),
        ("solver.steps=9", False),
        ("likelihood.steps=9", False),
        ("select.num_candidates=9", False),
        ("env.reference_max=9", False),
        ("chunk.execute=2", False),
    ],
)
def test_which_settings_make_evaluations_otherwise(word, alike):
    words = ["algo=gmpo", "env=multi-goal", "select=greedy", "chunk.length=3", "env.reference_min=0"]
    configs = [jobs(*words, *more)[0][0].config for more in (["env.reference_max=1"], ["env.reference_max=1", word])]
    assert (evaluations(configs[0]) == evaluations(configs[1])) == alike


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "journal.jsonl"])
def test_a_run_that_others_cannot_go_on_from_is_not_in_their_way(trained, tmp_path, name):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (only_run(tmp_path) / name).unlink()
    said = train(tmp_path, "algo.policy_steps=61")
    assert "does not go on from gmpo-gvp-" in said.err
    assert f"{name}: no such " in said.err
    assert "extends" not in json.loads((longer_than(tmp_path, 61) / "status.json").read_text())


def test_a_run_of_other_code_is_gone_on_from_only_if_that_was_said(trained, tmp_path):
    """As a phase of other code is taken; and who goes on from such a run is of no one code itself."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    path = only_run(tmp_path) / "status.json"
    status = json.loads(path.read_text())
    assert status["made"].keys() >= {"torch", "device", "code"}
    path.write_text(json.dumps(status | {"made": status["made"] | {"code": "0a0a0a0a"}}))
    assert "trained with code 0a0a0a0a; phases.reuse=any does" in train(tmp_path, "algo.policy_steps=61").err
    longer_than(tmp_path, 61).rename(tmp_path / "away")
    assert "goes on from" in train(tmp_path, "algo.policy_steps=62", "phases.reuse=any").err
    assert "goes on from" not in train(tmp_path, "algo.policy_steps=63").err
    made = [json.loads((longer_than(tmp_path, n) / "status.json").read_text())["made"] for n in (62, 63)]
    assert [each["code"] for each in made] == ["0a0a0a0a", status["made"]["code"]]


def test_a_longer_phase_whose_schedule_is_another_one_begins_anew(tmp_path):
    cosine = "algo.policy_schedule=cosine"
    train(tmp_path / "both", cosine)
    said = train(tmp_path / "both", cosine, "algo.policy_steps=80")
    assert "does not go on from gmpo-gvp-" in said.err
    assert "the schedule of its learning rate depends on its length" in said.err
    train(tmp_path / "alone", cosine, "algo.policy_steps=80", "phases.reuse=false")
    run, alone = longer_than(tmp_path / "both", 80), only_run(tmp_path / "alone")
    assert same(checkpoint.load(run / "policy.pt"), checkpoint.load(alone / "policy.pt"))


@pytest.mark.parametrize("every", ["20", "null"])
def test_a_longer_phase_that_adapts_by_its_length_begins_anew(every):
    more = "algo=meanflow_ql", "algo.policy_schedule=constant", f"algo.adapt_every={every}"
    [(job, _)] = jobs(*more, "tuned=none", "network=mlp", "env=multi-goal")
    found = reason_against(assemble(job.config, 2, -torch.ones(2), torch.ones(2)))
    assert found == (None if every == "null" else "when it changes its weights depends on its length")


def test_a_shorter_or_another_run_is_not_gone_on_from(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for more in (["algo.policy_steps=30"], ["algo.policy_steps=90", "algo.beta=1"], ["algo.policy_steps=90", "seed=1"]):
        assert "goes on from" not in train(tmp_path, *more).err


GUIDED = ("algo=gmpg", "algo.policy_steps=5", "algo.behaviour_steps=30", "algo.behaviour_batch_size=32")


def test_a_run_begins_with_parts_of_others(trained, tmp_path):
    """The same parts as it would train: so it ends in the same weights, and no phase but the last is trained."""
    train(tmp_path / "alone", *GUIDED, "phases.reuse=false")
    bc = [word for word in words(tmp_path / "bc", "algo=bc", *GUIDED[2:]) if not word.startswith(("algo.c", "algo.p"))]
    assert genpolicy(*bc, "algo.behaviour_lr=1e-4").code == 0
    alone, critic, behaviour = (only_run(each) for each in (tmp_path / "alone", trained, tmp_path / "bc"))
    given = [f"init.critic={critic}", f"init.behaviour={behaviour / 'last.pt'}"]
    said = train(tmp_path / "given", *GUIDED, *given)
    run = only_run(tmp_path / "given")
    assert run.parent.name != alone.parent.name  # another run
    left, right = (checkpoint.load(each / "policy.pt")["algorithm"] for each in (run, alone))
    assert same(left, right)
    assert {name.partition("/")[0] for name, *_ in records(run)} & {"critic", "behaviour", "policy"} == {"policy"}
    shutil.copytree(trained, tmp_path / "moved")  # the same weights elsewhere
    given[0] = f"init.critic={only_run(tmp_path / 'moved')}"
    said = train(tmp_path / "given", *GUIDED, *given)
    assert "finished already" in said.out
    only_run(tmp_path / "given")


def test_a_run_of_given_parts_alone_is_evaluated(trained, tmp_path):
    bc = [word for word in words(tmp_path / "bc", "algo=bc") if not word.startswith(("algo.c", "algo.p"))]
    steps = ["algo.behaviour_steps=30", "algo.behaviour_batch_size=32"]
    assert genpolicy(*bc, *steps).code == 0
    run = only_run(tmp_path / "bc")
    said = genpolicy(*bc, *steps, f"init.behaviour={run}", "study=given")
    assert said.code == 0, said.err
    (given,) = find_runs(tmp_path / "bc", "given")
    left, right = (
        {name: value for name, _, value in records(each) if name.startswith("final/")} for each in (run, given)
    )
    assert left == right


def test_a_policy_is_trained_on(trained, tmp_path):
    given = f"init.policy={only_run(trained)}"
    train(tmp_path, given, "algo.policy_steps=1", "algo.policy_lr=1e-12")
    left, right = (checkpoint.load(only_run(each) / "policy.pt") for each in (tmp_path, trained))
    for name, value in right["algorithm"].items():
        torch.testing.assert_close(left["algorithm"][name], value, rtol=0, atol=1e-9)


FIT = {
    "init.behaviour={run}": "has none; legal: init.policy, init.critic",
    "init.critic={run} critic.hidden=[8]": "has another critic: hidden; give this run the same",
    "init.critic={run} scaling.observation=none scaling.action=none": "learned with other units",
    "init.policy={run} model=icfm": "has another model",
    "init.policy={run} objective=noise_prediction objective.prediction=noise": "its network predicts the velocity",
    "init.policy={run} env=multi-goal": "is of env=swiss-roll; this run is of env=multi-goal",
    "init.critic=nowhere": "init.critic: nowhere is no run directory, checkpoint or MLflow run id",
    "init.critic={run} init.digests={{critic:abc}}": "are made by genpolicy",
}


@pytest.mark.parametrize("given", FIT)
def test_what_does_not_fit_is_refused(trained, tmp_path, given):
    result = genpolicy(*words(tmp_path, *SHORT, *given.format(run=only_run(trained)).split()))
    assert result.code == 1
    assert FIT[given] in result.err.splitlines()[-1], result.err
    assert any(find_runs(tmp_path)) == ("units" in FIT[given])  # which the data tell


def test_a_part_that_changes_before_the_run_begins_is_noticed(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "source")
    source = only_run(tmp_path / "source")
    ((job, _),) = jobs(*words(tmp_path / "runs", *SHORT, f"init.critic={source}"))
    initial.resolve([job])
    run = open_run(job.config, job.choices)
    saved = checkpoint.load(source / "last.pt")
    next(value for name, value in saved["algorithm"].items() if name.startswith("critic.")).add_(1.0)
    checkpoint.save(source / "last.pt", saved)
    with pytest.raises(UserError, match="has other weights now than when this run was made"):
        training.train(run)
