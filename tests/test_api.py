"""From Python: training, and trained policies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import jobs, last
from tiny import SMALL, words

import genpolicy
from genpolicy import api
from genpolicy.config.schema import build
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint
from genpolicy.runs.run import load_run
from genpolicy.training.setup import fresh_algorithm, restore

GOALS = ("env=multi-goal", "algo.policy_steps=60", "eval.per_phase=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return api.train(*words(tmp_path_factory.mktemp("outputs"), *GOALS))


@pytest.fixture(scope="module")
def policy(trained):
    return genpolicy.load_policy(trained.directory)


@pytest.fixture(scope="module")
def algorithm(trained):
    config = load_run(trained.directory).config
    algorithm = fresh_algorithm(config, build(config.env), torch.device("cpu"))
    restore(algorithm, trained.directory / "last.pt")
    return algorithm


SEEN = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)


def test_training_returns_what_the_table_says(trained):
    assert (trained.directory / "last.pt").exists()
    assert np.isfinite(trained.results["final"]["return_mean"])
    assert api.train(*words(trained.directory.parents[3], *GOALS)) == trained  # finished: left alone


def test_actions_are_those_of_evaluations(policy, algorithm):
    expected = algorithm.act(torch.from_numpy(SEEN).reshape(12, 2), torch.Generator().manual_seed(3))
    action = policy.act(SEEN, seed=3)
    assert action.dtype == np.float32
    np.testing.assert_array_equal(action, expected.reshape(3, 4, 2).numpy())
    assert torch.equal(policy.act(torch.from_numpy(SEEN), seed=3), torch.from_numpy(action))
    one = policy.act(SEEN[0, 0], seed=1)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, policy.act(SEEN[0, :1], seed=1)[0])
    assert not np.array_equal(policy.act(SEEN), policy.act(SEEN))


def test_samples_and_densities_are_those_of_the_model(policy, algorithm):
    samples = policy.sample(SEEN[0], 5, seed=2)
    assert samples.shape == (4, 5, 2)
    rows = torch.from_numpy(SEEN[0])
    with torch.no_grad():
        scaled = (rows - algorithm.scaling.mean) / algorithm.scaling.std
        expected = algorithm.policy.sample(scaled, torch.Generator().manual_seed(2), 5)
    np.testing.assert_array_equal(samples, expected.numpy())
    assert policy.has_density
    log_prob = policy.log_prob(SEEN[0], samples[:, 0])
    np.testing.assert_array_equal(log_prob, algorithm.log_prob(rows, expected[:, 0]).numpy())
    assert policy.log_prob(SEEN[0, 0], samples[0, 0]).shape == ()


def short(outputs, *more):
    """A run of three updates a phase."""
    plain = [word for word in SMALL if not word.startswith(("env=", "algo", "eval.per_phase="))]
    places = [f"paths.outputs={outputs}", f"paths.data={outputs}"]
    return api.train(*last([*places, *plain, "env=multi-goal", "eval.per_phase=1", *more])).directory


def values(state: dict, network: str, x: np.ndarray) -> np.ndarray:
    """What the E perceptrons of a checkpoint give [B, in]: [E, B], by NumPy."""
    prefix = f"critic.{network}."
    weights = {name.removeprefix(prefix): np.float64(state[name]) for name in state if name.startswith(prefix)}
    x = np.float64(x)[None]
    for layer in range(sum(name.startswith("layers.") for name in weights) // 2):
        x = np.maximum(x @ weights[f"layers.{layer}.weight"] + weights[f"layers.{layer}.bias"], 0)
    return np.einsum("ebi,ei->eb", x, weights["head.weight"][:, 0]) + weights["head.bias"]


def test_values_are_those_of_the_networks(policy, trained):
    state = checkpoint.load(trained.directory / "last.pt")["algorithm"]
    action = np.random.default_rng(1).uniform(-1, 1, SEEN.shape).astype(np.float32)
    mean, std = (state[f"scaling.{name}"].numpy() for name in ("mean", "std"))
    assert np.abs(mean).max() > 1e-3
    assert np.abs(std - 1).max() > 1e-2
    scaled = (SEEN - mean) / std
    q = values(state, "q_network", np.concatenate([scaled, action], -1).reshape(12, 4))
    assert q.shape == (2, 12)
    assert policy.has_critic
    np.testing.assert_allclose(policy.q(SEEN, action), q.min(0).reshape(3, 4), rtol=1e-4, atol=1e-5)
    (v,) = values(state, "v_network", scaled.reshape(12, 2))
    np.testing.assert_allclose(policy.v(SEEN), v.reshape(3, 4), rtol=1e-4, atol=1e-5)
    one = policy.q(torch.from_numpy(SEEN[0, 0]), torch.from_numpy(action[0, 0]))
    assert one.shape == ()
    assert one.item() == pytest.approx(q.min(0)[0], abs=1e-4)
    with pytest.raises(UserError, match="do not go with observations"):
        policy.q(SEEN, action[0])


def test_where_there_is_no_critic_that_is_said(trained, tmp_path, no_figures):
    alone = genpolicy.load_policy(trained.directory / "policy.pt")
    cloned = genpolicy.load_policy(short(tmp_path, "algo=bc", "algo.behaviour_steps=3"))
    for policy in (alone, cloned):
        assert not policy.has_critic
        for ask in (lambda policy=policy: policy.q(SEEN, SEEN), lambda policy=policy: policy.v(SEEN)):
            with pytest.raises(UserError, match=r"there is no critic: .*; the run directory or its last\.pt has it"):
                ask()
    np.testing.assert_array_equal(alone.act(SEEN, seed=3), genpolicy.load_policy(trained.directory).act(SEEN, seed=3))


def test_a_policy_acts_as_the_words_say(trained, policy, algorithm):
    chosen = genpolicy.load_policy(trained.directory, "solver=rk4", "solver.steps=3", "likelihood.steps=3")
    assert type(chosen.module.policy.solver).__name__ == "RK4"
    assert (chosen.module.policy.solver.steps, chosen.module.policy.likelihood.steps) == (3, 3)
    assert not np.array_equal(chosen.act(SEEN, seed=3), policy.act(SEEN, seed=3))
    greedy = genpolicy.load_policy(trained.directory, "select=greedy", "select.num_candidates=5")
    rows, noise = torch.from_numpy(SEEN).reshape(12, 2), greedy.module.draw_noise(12)
    candidates = [algorithm.actor()(rows, noise[:, [number]]) for number in range(5)]
    best = max(range(5), key=lambda number: algorithm.q(rows[:1], candidates[number][:1]).item())
    assert torch.equal(greedy.module(rows, noise)[0], candidates[best][0])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("eval.final_episodes=7", "eval.final_episodes=7: of evaluations, which load_policy makes none of"),
        ("chunk.length=2", "chunk.length: chunks are as long as those that the run was trained on"),
        ("select=greedy select.num_candidates=0", "select.num_candidates: 0 must be >= 1"),
        ("seed=1", "seed=1: goes with mode=train"),
    ],
)
def test_words_that_mean_nothing_to_a_policy_are_refused(trained, words, reason):
    with pytest.raises(UserError, match=reason):
        genpolicy.load_policy(trained.directory, *words.split())


def test_a_policy_without_its_critic_is_not_chosen_from(trained):
    with pytest.raises(UserError, match=r"policy\.pt: holds no critic, by which `select` chooses; the run directory"):
        genpolicy.load_policy(trained.directory / "policy.pt", "select=greedy")


def test_a_policy_that_is_chosen_from_keeps_its_critic(tmp_path, no_figures):
    run = short(tmp_path, "algo=gmpo", "algo.critic_steps=3", "algo.policy_steps=3", "select=greedy")
    whole, alone = (genpolicy.load_policy(run / name) for name in ("last.pt", "policy.pt"))
    assert alone.has_critic
    np.testing.assert_array_equal(alone.q(SEEN, SEEN), whole.q(SEEN, SEEN))
    rows, noise = torch.from_numpy(SEEN).reshape(12, 2), alone.module.draw_noise(12)
    assert noise.shape == (12, 32, 1, 2)
    scaled = alone.module.scaling.scale_observation(rows)
    candidates = alone.module.clip(alone.module.policy.sample(scaled, num_samples=32, noise=noise.flatten(0, 1)))
    best = whole.q(rows[:, None].expand(12, 32, 2), candidates).argmax(1)
    assert torch.equal(alone.module(rows, noise), candidates[torch.arange(12), best])
    first = genpolicy.load_policy(run / "policy.pt", "select=none")
    assert not first.has_critic
    assert torch.equal(first.module(rows, noise[:, :1]), candidates[:, 0])


def test_the_mean_of_q_functions_and_no_v(tmp_path, no_figures):
    policy = genpolicy.load_policy(short(tmp_path, "algo=td3_bc", "algo.steps=3", "critic.aggregate=mean"))
    rows = torch.from_numpy(SEEN[0])
    with torch.no_grad():
        each = policy._values.critic.q(policy.module.scaling.scale_observation(rows), rows)
    assert each.shape == (2, 4)
    np.testing.assert_allclose(policy.q(SEEN[0], SEEN[0]), each.mean(0).numpy(), rtol=1e-6)
    with pytest.raises(UserError, match="critic learns no V"):
        policy.v(SEEN)


@pytest.mark.slow
def test_what_acts_is_a_module_of_weights_alone(policy, tmp_path):
    """It is exported as a function of observations and noise, for any number of them."""
    module, rows = policy.module, torch.from_numpy(SEEN).reshape(12, 2)
    assert {name.partition(".")[0] for name in module.state_dict()} == {"policy", "scaling"}
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    noise = module.draw_noise(12, torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(module(rows, noise).numpy(), policy.act(SEEN, seed=3).reshape(12, 2))
    size = torch.export.Dim("size")
    exported = torch.export.export(module, (rows, noise), dynamic_shapes=({0: size}, {0: size})).module()
    torch.testing.assert_close(exported(rows[:5], noise[:5]), module(rows[:5], noise[:5]))


def test_a_policy_is_exported_or_says_why_not():
    def exported(name):
        ((job, _),) = jobs(f"algo={name}", "env=swiss-roll", "tuned=none", "network.hidden=[8]", "network=mlp")
        actor = fresh_algorithm(job.config, build(job.config.env), torch.device("cpu")).actor().requires_grad_(False)
        given = torch.zeros(3, 0), actor.draw_noise(3, torch.Generator().manual_seed(0))
        return actor(*given), torch.export.export(actor, given).module()(*given)

    torch.testing.assert_close(*exported("gtp"))
    with pytest.raises(UserError, match=r"algo=qgpo: takes the gradient of its energy .* cannot trace"):
        exported("qgpo")


@pytest.mark.slow
def test_the_package_gives_both_by_itself():
    command = "import genpolicy, sys; assert 'torch' not in sys.modules; genpolicy.api.train; genpolicy.load_policy"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_loading_leaves_the_callers_draws_and_threads_alone(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    genpolicy.load_policy(trained.directory)
    assert torch.equal(torch.rand(3), expected)
    assert asked == []
    genpolicy.load_policy(trained.directory, "threads=2")
    assert asked == [2]


@pytest.mark.slow
def test_a_problem_without_observations(tmp_path):
    run = api.train(*words(tmp_path, "algo.critic_steps=3", "algo.policy_steps=3", "eval.per_phase=1"))
    policy = genpolicy.load_policy(run.directory)
    assert policy.act(np.zeros((4, 0))).shape == (4, 2)
    assert policy.sample(np.zeros(0), 5).shape == (5, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "same",
    [
        lambda array: array[:, ::-1].copy()[:, ::-1],
        lambda array: np.broadcast_to(array, array.shape),
        lambda array: array.astype(">f4"),
        lambda array: array.astype(np.longdouble),
    ],
    ids=["strides", "read-only", "bytes", "longdouble"],
)
def test_an_array_of_any_layout_is_its_numbers(policy, same):
    np.testing.assert_array_equal(policy.act(same(SEEN[0]), seed=1), policy.act(SEEN[0], seed=1))


@pytest.mark.parametrize("kind", [object, str, complex, "M8[s]"])
def test_what_are_no_real_numbers_is_said(policy, kind):
    with pytest.raises(UserError, match="observation: must be of real numbers, not of type "):
        policy.act(np.zeros((1, 2)).astype(kind))


def test_whole_numbers_are_python_s_or_numpy_s(policy):
    expected = policy.sample(SEEN[0], 3, seed=2)
    np.testing.assert_array_equal(policy.sample(SEEN[0], np.int64(3), seed=np.uint8(2)), expected)
    for seed in (1.5, True, "a", 2**64):
        with pytest.raises(UserError, match=f"seed={seed}: must be a whole number, from "):
            policy.act(SEEN[0], seed=seed)


def test_what_does_not_fit_is_said(policy, tmp_path):
    with pytest.raises(UserError, match=r"observation: the last dimension of \(3,\) must be 2"):
        policy.act(np.zeros(3))
    with pytest.raises(UserError, match="observation: must be an array of NumPy or torch, not of type list"):
        policy.act([0.0, 0.0])
    with pytest.raises(UserError, match="action: must be an array of NumPy or torch, not of type tuple"):
        policy.log_prob(np.zeros(2), (0.0, 0.0))
    with pytest.raises(UserError, match="do not go with observations"):
        policy.log_prob(np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(UserError, match="no run directory"):
        genpolicy.load_policy(tmp_path / "nothing")
    with pytest.raises(UserError, match="leave mode out"):
        api.train("mode=tasks")
    with pytest.raises(UserError, match="several values are a sweep"):
        api.train(*SMALL, "seed=0,1")
    for flag in ("-m", "--multirun", "--help"):
        with pytest.raises(UserError, match=f"{flag}: a flag of the command line; from Python there is one run"):
            api.train(flag, *SMALL)
    with pytest.raises(UserError, match=r"\['algo=bc'\]: no word of a command line"):
        api.train(["algo=bc"])
    with pytest.raises(UserError, match=r"observation: must be of real numbers, not of type torch\.complex64"):
        policy.act(torch.zeros(1, 2, dtype=torch.complex64))
    for count in (0, -1, 1.5, True):
        with pytest.raises(UserError, match=f"num_samples={count}: must be a whole number, 1 or more"):
            policy.sample(np.zeros(2), count)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        genpolicy.nothing  # noqa: B018, the attribute is the test
