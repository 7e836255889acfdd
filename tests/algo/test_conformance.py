"""What every algorithm of conf/algo must do; new ones are picked up by themselves."""

import math
import os
import signal

import pytest
import torch
from command_line import genpolicy, jobs, tried
from omegaconf import OmegaConf
from small import ALGORITHMS, STEPS, begun, random_transitions, shrink, sizes
from tiny import only_run, records, same

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.algorithm import assemble
from genpolicy.algo.update import Update
from genpolicy.config.arguments import options
from genpolicy.config.option_content import all_settings
from genpolicy.config.plain_yaml import read
from genpolicy.config.schema import locate
from genpolicy.dataset.transitions import Transitions
from genpolicy.model import policy
from genpolicy.model.policy import Policy
from genpolicy.network import averaging
from genpolicy.runs import checkpoint
from genpolicy.runs.run import load_run
from genpolicy.training.setup import restore

pytestmark = pytest.mark.usefixtures("no_figures")
RUN = ["env=multi-goal", "dataset.episodes=10", "eval.per_phase=1", "eval.episodes=2", "eval.final_episodes=3"]
RUN += ["eval.log_prob_actions=10", "tracking.uri=none", "checkpoint_seconds=1000"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_trains_is_evaluated_and_resumes_to_the_bit(name, tmp_path, monkeypatch):
    words = [f"algo={name}", "tuned=none", "network=mlp", *RUN]
    [(job, _)] = jobs(*words)
    words += [f"{key}={size}".replace(" ", "") for key, size in sizes(job.config).items()]
    whole, parts = ([*words, f"paths.outputs={tmp_path / folder}"] for folder in ("whole", "parts"))
    result = genpolicy(*whole)
    assert result.code == 0, result.err
    run = only_run(tmp_path / "whole")
    final = {metric: value for metric, _, value in records(run) if metric.startswith("final/")}
    assert math.isfinite(final["final/return_mean"])
    algorithm = assemble(load_run(run).config, 2, -torch.ones(2), torch.ones(2))
    drawn = algorithm.draw_noise(3), algorithm.draw_choice(3)
    assert algorithm(torch.zeros(3, 2), *drawn).shape == (3, algorithm.policy.action_size)
    assert algorithm.policy.has_density == ("final/log_prob" in final)
    if algorithm.policy.has_density:
        assert math.isfinite(final["final/log_prob"])
    else:
        [row] = [line for line in result.out.splitlines() if line.strip().startswith("trained policy")]
        assert "no density" in row

    calls, real = [], Update.__call__

    def disturbed(update, *arguments):
        calls.append(1)
        if len(calls) == STEPS * 3 // 2:  # in the second phase, if there is one
            os.kill(os.getpid(), signal.SIGTERM)
        return real(update, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "__call__", disturbed)
        stopped = genpolicy(*parts).code
    assert stopped == (143 if len(calls) >= STEPS * 3 // 2 else 0)
    assert genpolicy(*parts).code == 0
    saved = [checkpoint.load(path / "last.pt") for path in (run, only_run(tmp_path / "parts"))]
    assert same(saved[0]["algorithm"], saved[1]["algorithm"])
    assert same(saved[0]["generators"], saved[1]["generators"])
    observation, generator = torch.randn(5, 2), torch.Generator()
    restore(algorithm, run / "policy.pt")
    action = algorithm.act(observation, generator.manual_seed(0))
    algorithm.load_state_dict(saved[0]["algorithm"])
    assert torch.equal(algorithm.act(observation, generator.manual_seed(0)), action)
    assert same(algorithm.state_dict(), saved[0]["algorithm"])


# Of those of one class, which need the same of other groups, the first.
CLASSES = {all_settings(path, "algo")["_target_"]: name for name, path in reversed(options("algo").items())}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSES.values()))
def test_whatever_is_accepted_works_and_the_rest_is_refused_in_a_line(name):
    words = [f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal"]
    [(default, _)] = jobs(*words)
    assert_works(default.config)
    for group in ("model", "critic", "select"):
        for option in each_class(group):
            if option == default.choices[group]:
                continue
            result, started = tried(*words, f"{group}={option}")
            if result.code:
                assert result.err.count("\n") == 1, result.err
                assert result.err.startswith("genpolicy: ")
                continue
            [(job, _)] = started
            assert_works(job.config, f"{group}={option}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_loss_gives_gradients_to_all_that_its_update_trains_and_to_nothing_else(name):
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal")
    shrink(job.config)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    data, generator = random_transitions(), torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        batch = begun(phase, data).sample(8, generator)
        batch = batch if phase.extend is None else phase.extend(batch)
        for key, update in phase.updates.items():
            algorithm.zero_grad()
            update(batch, generator, 0.5)
            given = {id(parameter) for parameter in algorithm.parameters() if parameter.grad is not None}
            assert given == {id(parameter) for parameter in update.parameters}, (phase.name, key)


def test_actions_that_are_drawn_ahead_are_of_other_noise_at_states_and_at_next_states():
    [(job, _)] = jobs("algo=qgpo", "tuned=none", "network=mlp", "env=multi-goal", "algo.joint=false")
    for key, size in (sizes(job.config) | {"algo.num_actions": 3}).items():
        OmegaConf.update(job.config, key, size)
    _, critic, policy = assemble(job.config, 2, -torch.ones(2), torch.ones(2)).phases
    data = random_transitions()
    columns = {name: data["observation" if name == "next_observation" else name] for name in data.shapes}
    data = Transitions.side_by_side(columns)
    at_next = critic.prepare(data)["next_behaviour_action"]
    assert torch.equal(critic.prepare(data)["next_behaviour_action"], at_next)  # as a run that is resumed has them
    assert not torch.isclose(policy.prepare(data)["behaviour_action"], at_next).any()


@pytest.mark.parametrize(
    "words",
    [
        "algo=bfn model=trajectory objective=trajectory",
        "algo=dsrl model=trajectory objective=trajectory",
        "algo=meanflow_ql objective=consistency algo.policy_delay=2",
        "algo=edp algo.policy_delay=2 algo.ema_start=0 algo.ema_every=1",
    ],
)
def test_a_moving_average_follows_each_update_of_its_network_once(words, monkeypatch):
    followed, real = [], averaging.polyak_update

    def counted(target, source, rate):
        followed.append(rate)
        real(target, source, rate)

    monkeypatch.setattr(policy, "polyak_update", counted)
    [(job, _)] = jobs(*words.split(), "tuned=none", "network=mlp", "env=multi-goal", "model.target_rate=0.01")
    shrink(job.config)
    [phase] = assemble(job.config, 2, -torch.ones(2), torch.ones(2)).phases
    data, generator = random_transitions(), torch.Generator().manual_seed(0)
    for step in range(4):
        phase.update(data.sample(8, generator), generator, step)
    assert followed == [0.01] * next(iter(phase.updates.values())).count  # the actor's is the first


def actor_critics() -> list[str]:
    found = (name for name in ALGORITHMS if issubclass(locate(read(options("algo")[name])["_target_"]), ActorCritic))
    return [name for name in found if name != "meanflow_ql"]  # whose policy has a schedule of its own


@pytest.mark.parametrize("name", actor_critics())
def test_a_schedule_is_that_of_all_updates(name):
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", "algo.schedule=cosine")
    shrink(job.config)
    for phase in assemble(job.config, 2, -torch.ones(2), torch.ones(2)).phases:
        assert {update.schedule for update in phase.updates.values()} <= {"cosine"} or phase.name == "behaviour"


@pytest.mark.parametrize("prediction", ["noise", "data", "velocity", "score", "preconditioned"])
def test_the_steps_of_bdpo_are_those_of_what_its_network_predicts(prediction):
    [(job, _)] = jobs("algo=bdpo", "tuned=none", "network=mlp", "env=multi-goal", f"objective.prediction={prediction}")
    shrink(job.config)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    flow, path = algorithm.policy, algorithm.policy.path
    x, observation = 0.5 * torch.randn(6, 2), torch.randn(6, 2)
    for level in range(1, path.steps + 1):
        t, below = torch.full((6,), level / path.steps), torch.full((6,), (level - 1) / path.steps)
        alpha, sigma, alpha_below, sigma_below = (
            of(at)[:, None] for at in (t, below) for of in (path.alpha, path.sigma)
        )
        forgotten = 1 - (alpha / alpha_below) ** 2
        data = flow.data(x, t, observation)
        expected = (alpha_below * forgotten * data + alpha / alpha_below * sigma_below**2 * x) / sigma**2
        found = algorithm.step(flow, x, t, observation)
        torch.testing.assert_close(found.mean, expected, rtol=1e-4, atol=1e-4)


def each_class(group: str) -> list[str]:
    """An option for each class that a group's options name, with the path of a model."""
    found = {}
    for option, path in options(group).items():
        content = all_settings(path, group)
        found.setdefault((content["_target_"], content.get("path", {}).get("_target_")), option)
    return list(found.values())


def assert_works(config, word: str = "") -> None:
    """One update of each phase; what acts afterwards, and what is restored from it. word: for messages."""
    data = random_transitions()
    shrink(config)
    algorithm = assemble(config, 2, -torch.ones(2), torch.ones(2))
    generator = torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        source = begun(phase, data)
        assert all(isinstance(update, Update) for update in phase.updates.values())
        assert phase.policy is None or isinstance(phase.policy, Policy)
        metrics = {}
        for step in (phase.steps // 2, phase.steps // 2 + 1):  # some updates are made at every second one only
            metrics |= phase.update(source.sample(8, generator), generator, step)
        assert all(torch.isfinite(metric) for metric in metrics.values()), (word, metrics)
    action = algorithm.act(data.observation, generator.manual_seed(1))
    assert action.shape == (32, 2)
    other = assemble(config, 2, -torch.ones(2), torch.ones(2))
    other.actor().load_state_dict(algorithm.actor().state_dict())
    assert torch.equal(other.act(data.observation, generator.manual_seed(1)), action), word


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("algo=bc select=greedy", "select: chooses by a critic, which this algorithm does not learn"),
        (
            "algo=gmpo critic=double_q",
            "critic: needs actions of the policy, trained after it; legal: critic=iql",
        ),
        ("algo=idql critic=double_q", "legal: critic=in_support|iql|"),
        ("algo=gmpo critic=in_support", "legal: critic=iql"),
        ("algo=diffusion_ql critic=in_support", "critic: needs a behaviour model"),
        ("algo=diffusion_ql critic.ensemble=1", "critic.ensemble=1: the actor maximises one of 2 Q functions"),
        ("algo=diffusion_ql select=expectile", "critic: must learn V"),
        ("algo=gmpg model=gaussian", "model: this algorithm needs a generative model"),
        ("algo=srpo model=gaussian", "model: this algorithm needs a generative model"),
        ("algo=edp objective=likelihood", "objective: this algorithm needs a denoiser"),
        ("algo=bc objective=likelihood", "objective: does not fit this model; legal: objective=edm|edm_loglogistic|"),
        (
            "algo=gmpg_reinforce critic=in_support",
            "critic: must learn V; legal: critic=iql|",
        ),
        ("algo=qgpo model=trajectory", "model: a solution map cannot be guided"),
        (
            "algo=qgpo model=consistency objective=consistency solver=renoise algo.energy=denoised critic=iql",
            "model: a solution map cannot be guided",
        ),
        (
            "algo=fac model=meanflow_action objective=meanflow_action solver=one_jump",
            "model: FAC's log-densities are those of a flow on straight paths; legal: model=icfm",
        ),
        ("algo=rebrac algo.ema_start=10", "algo.ema_start=10: the actor's moving average follows at each"),
        (
            "algo=fan critic=double_q_gelu",
            "critic: FAN needs Q functions that are conditioned on noise; legal: critic=noise_",
        ),
        (
            "algo=fql critic=noise_conditioned",
            "critic: needs a flow that anchors the policy, which this algorithm lacks",
        ),
        (
            "algo=dac objective=flow_matching",
            "objective: the critic draws noise predictions; legal: objective=epsilon|",
        ),
        ("algo=bdpo critic=double_q_dac", "critic: BDPO needs values of noisy actions; legal: critic=chain"),
        ("algo=bdpo critic.subset=2", "critic.subset=2: of Q's targets, and V's would be without; legal: null"),
        ("algo=bdpo solver=ancestral", "values are those of the steps of DDPM's own chain; legal: solver=ancestral_f"),
        ("algo=bdpo solver=heun", "values are those of the steps of DDPM's own chain; legal: solver=ancestral_f"),
        ("algo=bdpo model.path.steps=9", "those of the model.path.steps=9 steps of its chain; set both, or"),
        ("algo=bdpo critic.expectile=0.7", "critic.expectile=0.7: V is of noisy actions here; legal: null"),
        ("algo=bdpo model=gvp", "model: BDPO needs a chain of steps; legal: model=ddpm|"),
        ("algo=bdpo objective=score_matching", "objective: BDPO compares noise predictions; legal: objective=epsilon|"),
        (
            "algo=dac critic=chain",
            "critic: needs a chain that is held to a behaviour model's, which this algorithm lacks",
        ),
        ("algo=dac algo.eta_min=2 algo.eta_max=1", "algo.eta_min=2.0: must be at most algo.eta_max=1.0"),
        ("algo=qsm algo.lr=1e-3", "critic.lr=0.0003: one optimiser trains all; legal: 0.001, as algo.lr"),
        ("algo=qam model.path.sigma_min=0.1", "model: adjoint matching needs straight paths from noise to actions"),
        ("algo=qsm algo.policy_delay=2", "algo.policy_delay=2: with algo.joint one optimiser trains all; legal: 1"),
        ("algo=dac algo.joint=true algo.clip_each_q=true", "algo.clip_each_q=true: with algo.joint one optimiser"),
        ("algo=gtp algo.batch_size=1", "algo.batch_size: 1 must be >= 2"),
        ("algo=gtp_linear_q algo.batch_size=1 critic.normalize=true", "algo.batch_size=1: critic.normalize divides by"),
        (
            "algo=qgpo algo.critic_batch_size=1 critic.normalize=true",
            "algo.critic_batch_size=1: critic.normalize",
        ),
        ("algo=edp critic.expectile=0.7 algo.gradient_norm=1", "algo.clip_each_q=true: Q is updated together with V"),
        ("algo=qc algo.ema_every=5", "algo.ema_every=5: this algorithm keeps no moving average of its actor; legal: 1"),
        ("algo=rebrac algo.eta=2", "algo.eta"),
        ("algo=td3_bc algo.own_size=true", "algo.own_size"),
        ("algo=sfbc critic.lagged_target=true", "critic.lagged_target=true: this critic's target is"),
        ("algo=sfbc critic.expectile=0.7", "critic.expectile=0.7: this critic learns no V; legal: null"),
        ("algo=qgpo critic.over_candidates=mean", "critic.over_candidates=mean: this critic takes a softmax mean over"),
        ("algo=gtp_linear_q algo.own_size=true", "algo.own_size=true: with algo.normalize=false Q is not divided"),
        (
            "algo=bc model=gvp model.path.t_min=0 objective=score_matching objective.prediction=preconditioned "
            "objective.weighting=maximum_likelihood",
            "model.path.t_min=0: there is no noise then",
        ),
        (
            "algo=bc model=ddpm objective=score_matching objective.weighting=maximum_likelihood",
            "objective.weighting=maximum_likelihood draws times of its own, and this model knows those of its",
        ),
        ("algo=bc model=ddpm objective=edm", "objective: it draws times of its own, and this model knows th"),
        (
            "algo=gtp model.path._target_=genpolicy.model.ddpm.DDPM",
            "objective: it draws times of its own, and this model knows those of its noise levels alone; legal: a mo",
        ),
        (
            "algo=consistency_ac model=trajectory model._target_=genpolicy.model.consistency.ConsistencyPolicy "
            "model.path._target_=genpolicy.model.path.ICFM",
            "model.path: nothing is left of the action at t = 1, in units of which consistency models",
        ),
        (
            "algo=gtp objective.target=euler objective.flow_weight=0",
            "objective.flow_weight=0: objective.target=euler takes steps of the instantaneous map, which is then not",
        ),
        (
            "algo=bc model=icfm model.path.t_min=0 objective.prediction=data",
            "model.path.t_min=0: there is no noise then, where data predictions do not say how the flow goes on; legal",
        ),
        (
            "algo=srpo model=ddpm",
            "algo.time_margin=0.02: this model knows the times of its noise levels alone; legal: 0",
        ),
        ("algo=fac objective.prediction=data", "objective.prediction=data: this algorithm takes the flow's velocity"),
        ("algo=qam objective.prediction=noise", "objective.prediction=noise: this algorithm takes the flow's velocity"),
        (
            "algo=bc model=otcfm solver=sde",
            "solver: adds noise along the score, which does not follow from a model that",
        ),
        ("algo=gfp model=otcfm", "model: GFP weights pairs of action and noise, which must be independent; legal: mod"),
        ("algo=srpo model=otcfm", "model: SRPO's actions are judged with noise, which must be independent; legal: mod"),
        ("algo=qgpo model=otcfm", "model: QGPO's energies are those of actions with noise, which must be independent"),
        ("algo=bc model=ddpm objective.prediction=velocity solver=rk4", "model.path.t_min=0: there is no noise then"),
        ("algo=bc model=consistency objective=meanflow_action", "objective: does not fit this model; legal: objective"),
        ("algo=bc model=tanh_gaussian objective=least_squares", "this model; legal: objective=likelihood\n"),
        ("algo=bc model=meanflow objective.instantaneous=0", "the field that densities follow from is not learned"),
        (
            "algo=bc model=meanflow objective.times=logit_normal",
            "objective.times=logit_normal: with objective.ends=data",
        ),
        ("algo=bc model=trajectory objective.target_steps=2", "objective.target_steps=2: objective.target=closed_form"),
        ("algo=fql solver=sde", "solver: FQL distils a flow that noise enters at its start only"),
        (
            "algo=rlpd model=gvp objective=flow_matching",
            "model: RLPD needs a tanh-Gaussian policy; legal: model=tan",
        ),
        (
            "algo=rlpd network=residual",
            "network: this model takes a mean and a standard deviation from it; legal: network=mlp|",
        ),
        ("algo=rlpd critic.subset=11", "critic.subset=11: there are critic.ensemble=10 Q functions to draw from"),
        ("algo=dsrl solver=sde", "solver: DSRL steers a flow that noise enters at its start only; legal: solver="),
        ("algo=expo algo.lr=1e-3", "critic.lr=0.0003: one optimiser trains all; legal: 0.001, as algo.lr"),
        ("algo=td3_bc model=gvp", "model: TD3+BC needs a policy with a mean"),
        ("algo=iql objective=flow_matching", "does not fit this model; legal: objective=least_squares|likelihood"),
        ("algo=iql eval.steps=[1]", "eval.steps: this model takes one step"),
        ("algo=fql eval.steps=[1]", "eval.steps: this algorithm's policy takes one step"),
        ("algo=srpo eval.steps=[1]", "eval.steps: this algorithm's policy takes one step"),
        ("algo=qam_f eval.steps=[1]", "eval.steps: this algorithm's policy takes one step"),
    ],
)
def test_what_does_not_go_together_is_refused(words, reason):
    result, _ = tried("tuned=none", *words.split())
    assert result.code == 1
    assert reason in result.err
    assert result.err.count("\n") == 1
