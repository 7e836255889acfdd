"""The values of conf/tuned, by algorithm and task or family of tasks: which are taken, and whose."""

import math

import pytest
from command_line import genpolicy, jobs, tried
from omegaconf import OmegaConf
from test_conf import contains

from genpolicy.config import plain_yaml, plugins, tuned
from genpolicy.config.arguments import CONF, options
from genpolicy.config.option_content import merged
from genpolicy.config.run_settings import TrainSettings
from genpolicy.config.validation import check
from genpolicy.system.console import remark

FILES = sorted((CONF / "tuned").glob("*/*.yaml"))

pytestmark = pytest.mark.usefixtures("elsewhere")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def words(task):
    """Of a command for a task; the control suite's data are a file that is given: its content is not read here."""
    return [f"env={task}", f"dataset.path={__file__}"] if task.startswith("dmc-") else [f"env={task}"]


def test_there_are_fewer_than_a_hundred_files():
    assert len(FILES) < 100
    assert {path for path in (CONF / "tuned").rglob("*") if path.is_file()} == {*FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_is_of_an_algorithm_and_of_a_task_or_a_family_whose_tasks_it_names(path):
    content, tasks = plain_yaml.read(path), options("env")
    assert path.parent.name in options("algo")
    if path.stem in tasks:
        assert tuned.TABLE not in content
        return
    assert content[tuned.TABLE]
    for task in content[tuned.TABLE]:
        assert merged(tasks[task], "env")["family"] == path.stem


def test_observations_are_raw_but_where_the_authors_standardise_them():
    """And where values of the toys and of the embedded data were chosen here."""
    standardised = set()
    for path in FILES:
        content = plain_yaml.read(path)
        if tuned.TABLE in content and content.get("scaling", {}).get("observation") != "none":
            standardised.add((path.parent.name, path.stem))
    assert standardised == {("td3_bc", "locomotion"), ("td3_bc", "antmaze"), ("meanflow_ql", "ogbench")}


@pytest.mark.slow
@pytest.mark.parametrize("algo", sorted({path.parent.name for path in FILES}))
def test_values_are_legal_and_taken(algo):
    """Of tasks with values of the same settings that build on the same file, such as hopper's, one is composed."""
    tried, composed, tasks = [], {}, options("env")
    for name, path in options("tuned").items():
        folder, _, task = name.partition("/")
        if folder != algo:
            continue
        values = tuned.values(plain_yaml.read(path), task, path)
        variant_of = plain_yaml.read(tasks[task]).get("defaults")
        if (values, variant_of) in tried:
            continue
        tried.append((values, variant_of))
        alike = str((names_in(values), variant_of))
        if alike in composed:
            job = composed[alike]
            found = check(OmegaConf.merge(job.config, values), job.choices, root=TrainSettings)
        else:
            [(job, _)] = jobs(f"algo={algo}", *words(task))
            assert job.choices["tuned"] == name
            composed[alike], found = job, job.config
        assert contains(found, values), f"{path} is not taken for {task}"


def names_in(values):
    return {name: names_in(below) for name, below in values.items()} if isinstance(values, dict) else None


@pytest.mark.parametrize(
    ("task", "alpha", "discount", "aggregate", "ifql", "rebrac", "iql"),
    [
        ("antmaze-giant-navigate", 10, 0.995, "min", 32, (0.003, 0.01), 10),
        ("antsoccer-arena-navigate", 10, 0.995, "mean", 64, (0.01, 0.01), 1),
        ("cube-double-play", 300, 0.99, "mean", 32, (0.1, 0), 0.3),
        ("puzzle-4x4-play", 1000, 0.99, "mean", 32, (0.3, 0.01), 3),
    ],
)
def test_values_of_ogbench_are_those_of_fqls_commands_and_tables(task, alpha, discount, aggregate, ifql, rebrac, iql):
    """Typed in from the README of seohongpark/fql at 719d044, and from tables 6 and 7 of the paper."""
    found = {
        algo: jobs(f"algo={algo}", f"env=ogbench-{task}")[0][0].config for algo in ("fql", "ifql", "rebrac", "iql")
    }
    for config in found.values():
        assert config.critic.discount == discount
        assert (config.critic.activation, config.critic.layer_norm, len(config.critic.hidden)) == ("gelu_tanh", True, 4)
        assert (config.network.activation, len(config.network.hidden)) == ("gelu_tanh", 4)
        assert (config.eval.episodes, config.eval.final_episodes, config.eval.per_phase) == (50, 50, 10)
        assert config.dataset.action_margin == 1e-5
        assert config.scaling.observation == "none"
    assert (found["fql"].algo.alpha, found["fql"].algo.steps) == (alpha, 10**6)
    assert found["fql"].critic.aggregate == aggregate
    assert found["ifql"].select.num_candidates == ifql
    assert (found["rebrac"].algo.alpha, found["rebrac"].critic.penalty) == rebrac
    assert found["iql"].algo.beta == iql


def test_a_familys_file_has_what_is_shared_and_a_table_of_what_differs(tmp_path):
    shared = "algo: {beta: 7, policy_steps: 3}\ncritic: {hidden: [8]}\n"
    own = "tasks:\n  hopper-medium-v2: {algo: {beta: 8}, critic: {hidden: [4, 4]}}\n  walker2d-medium-v2: {}\n"
    write(tmp_path / "conf/tuned/gmpo/locomotion.yaml", f"# @package _global_\n{shared}{own}")
    expected = {"hopper": (8, 3, [4, 4]), "walker2d": (7, 3, [8])}
    for robot, values in expected.items():
        [(job, _)] = jobs("algo=gmpo", f"env={robot}-medium-v2")
        assert job.choices["tuned"] == f"gmpo/{robot}-medium-v2"
        assert (job.config.algo.beta, job.config.algo.policy_steps, job.config.critic.hidden) == values
    [(job, _)] = jobs("algo=gmpo", "env=hopper-medium-v2", "algo.beta=9")
    assert (job.config.algo.beta, job.config.algo.policy_steps) == (9, 3)
    [(plain, _)] = jobs("algo=gmpo", "env=halfcheetah-medium-v2")
    [(none, _)] = jobs("algo=gmpo", "env=halfcheetah-medium-v2", "tuned=none")
    assert (plain.config.algo.beta, none.config.algo.beta) == (8, 4)  # the packaged file has this task
    write(tmp_path / "conf/tuned/gmpo/hopper-medium-v2.yaml", "# @package _global_\nalgo: {beta: 5}\n")
    [(job, _)] = jobs("algo=gmpo", "env=hopper-medium-v2")
    assert (job.config.algo.beta, job.config.algo.policy_steps) == (5, none.config.algo.policy_steps)


def test_a_familys_file_without_a_table_is_for_all_its_tasks(tmp_path):
    write(tmp_path / "conf/env/mine.yaml", "# Mine\ndefaults: [hopper-medium-v2, _self_]\n")
    write(tmp_path / "conf/env/yours.yaml", "# Yours\ndefaults: [hopper-medium-v2, _self_]\nfamily: people\n")
    write(tmp_path / "conf/tuned/gmpo/people.yaml", "# @package _global_\nalgo: {beta: 7}\n")
    [(job, _)] = jobs("algo=gmpo", "env=yours")
    assert (job.config.algo.beta, job.config.env.family) == (7, "people")
    assert "gmpo/yours" in options("tuned")
    assert jobs("algo=gmpo", "env=mine")[0][0].config.algo.beta == 4


@pytest.mark.parametrize(
    ("folder", "name", "more", "task", "beta"),
    [
        ("plugin", "hopper-medium-v2", "", "hopper-medium-v2", 16),
        ("plugin", "locomotion", "", "hopper-medium-v2", 16),
        ("plugin", "locomotion", "", "hopper-expert-v2", 7),  # of which the packaged file has nothing
        ("conf", "hopper-medium-v2", "", "hopper-medium-v2", 7),
        ("conf", "locomotion", "", "hopper-medium-v2", 7),
        ("conf", "locomotion", "tasks: {hopper-expert-v2: {}}\n", "hopper-medium-v2", 16),
        ("conf", "maze2d", "", "maze2d-umaze-v1", 7),  # of which the packaged file is the task's own
    ],
)
def test_of_the_folders_the_first_that_has_values_for_a_task_counts(
    tmp_path, monkeypatch, folder, name, more, task, beta
):
    (tmp_path / "plugin").mkdir()
    monkeypatch.setattr(plugins, "folders", lambda: [tmp_path / "plugin"])
    path = tmp_path / folder / f"tuned/gmpo/{name}.yaml"
    write(path, f"# @package _global_\nalgo: {{beta: 7}}\n{more}")
    assert jobs("algo=gmpo", f"env={task}")[0][0].config.algo.beta == beta
    assert (options("tuned")[f"gmpo/{task}"] == path) == (beta == 7)


@pytest.mark.parametrize("algo", ["bc", "gmpo", "gmpg"])
def test_values_for_the_embedded_data_are_not_taken_for_others(tmp_path, algo):
    remark.cache_clear()
    (tmp_path / "mine.npz").touch()
    other = [f"algo={algo}", "env=maze2d-umaze-v1", "dataset=npz", "dataset.path=mine.npz"]
    result, [(job, _)] = tried(*other)
    assert f"{algo} are for dataset=waypoint, and not taken; to take them: tuned={algo}/maze2d-umaze-v1" in result.err
    result, [(none, _)] = tried(*other, "tuned=none")
    assert (job.config, job.choices, result.err) == (none.config, none.choices, "")
    result, [(given, _)] = tried(*other, f"tuned={algo}/maze2d-umaze-v1")
    (embedded, _), *_ = jobs(*other[:2])
    assert (given.config.algo, result.err) == (embedded.config.algo, "")
    assert given.config.algo != none.config.algo


def test_an_own_variant_of_an_algorithm_is_told_whose_values_there_are(tmp_path):
    remark.cache_clear()
    write(tmp_path / "conf/algo/mine.yaml", "# Mine\ndefaults: [gmpo, _self_]\n")
    said = "tuned: no values for algo=mine; those of gmpo: tuned=gmpo/hopper-medium-v2\n"
    assert tried("-m", "algo=mine", "env=hopper-medium-v2", "seed=0,1")[0].err == said
    remark.cache_clear()
    for words in (["tuned=gmpo/hopper-medium-v2"], ["tuned=none"], ["env=pen-human-v1"], ["algo=gmpg_reinforce"]):
        assert tried("algo=mine", "env=hopper-medium-v2", *words)[0].err == ""


def test_a_task_without_values_has_the_defaults():
    assert "gmpg/hopper-expert-v2" not in options("tuned")
    [(job, _)], [(none, _)] = (jobs("algo=gmpg", "env=hopper-expert-v2", *more) for more in ([], ["tuned=none"]))
    assert job.config == none.config
    assert genpolicy("tuned=gmpg/locomotion").err.startswith("genpolicy: tuned=gmpg/locomotion: no such option; ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [hopper-medium-v2]\n", "tasks: must hold the values of each task by its name"),
        ("tasks: {hopper-medium-v2: 3}\n", "tasks: hopper-medium-v2: must hold settings"),
        ("tasks: {hopper-medium-v2: {hydra: {run: {dir: x}}}}\n", "tasks: hopper-medium-v2: must hold settings"),
        ("tasks: {hopper-medium-v2: {defaults: [override /hydra/launcher: local]}}\n", "must hold settings"),
        ("tasks: {hopper-medium-v2: {study: '${oc.env:HOME}'}}\n", "only references to other settings"),
        ("hydra: {run: {dir: x}}\ntasks: {hopper-medium-v2: {}}\n", "genpolicy arranges this itself"),
        ("tasks: {hopper-medium-v2: {algo: {bet: 3}}}\n", "it comes from tuned=gmpo/hopper-medium-v2"),
        ("defaults: [override /network: mlp]\n", "a file of tuned gives values and chooses no options"),
        ("defaults: [locomotion]\n", "'locomotion': a file of tuned gives values and chooses no options"),
        ("defaults: [/tuned/gmpo/hopper-medium-v2]\n", "locomotion.yaml: builds on itself"),
        ("for_dataset: [waypoint]\n", "for_dataset: ['waypoint']: no option of dataset; "),
    ],
)
def test_what_a_familys_file_may_not_hold(tmp_path, text, said):
    write(tmp_path / "conf/tuned/gmpo/locomotion.yaml", f"# @package _global_\n{text}")
    result, started = tried("algo=gmpo", "env=hopper-medium-v2")
    assert (result.code, result.err.count("\n"), started) == (1, 1, [])
    assert said in result.err


def test_a_familys_file_that_has_changed_is_read_anew(tmp_path):
    path = tmp_path / "conf/tuned/gmpo/locomotion.yaml"
    for beta in (7, 8):
        write(path, f"# @package _global_\nalgo: {{beta: {beta}}}\n")
        assert jobs("algo=gmpo", "env=hopper-medium-v2")[0][0].config.algo.beta == beta


@pytest.mark.parametrize(
    ("task", "discount", "pessimism", "found"),
    [
        (
            "antmaze-large",
            0.99,
            0.5,
            {"qam": 10, "qam_f": (3, 30), "qam_e": (1, 0.1), "qsm": (10, 10), "dac": 0.3, "dsrl": 0.8, "expo": 0.2},
        ),
        (
            "antmaze-giant",
            0.995,
            0.5,
            {"qam": 3, "qam_f": (3, 30), "qam_e": (10, 0.1), "qsm": (10, 10), "dac": 0.3, "dsrl": 1.2, "expo": 0.3},
        ),
        (
            "humanoidmaze-medium",
            0.995,
            0,
            {"qam": 3, "qam_f": (1, 30), "qam_e": (3, 0.1), "qsm": (10, 30), "dac": 1, "dsrl": 0.6, "expo": 0.5},
        ),
        (
            "humanoidmaze-large",
            0.995,
            0,
            {"qam": 3, "qam_f": (0.3, 30), "qam_e": (3, 0.1), "qsm": (10, 30), "dac": 0.3, "dsrl": 0.8, "expo": 0.1},
        ),
        ("cube-double", 0.99, 0.5, {"qam": 1, "qsm": (1, 10), "dac": 3, "dsrl": 1.0, "expo": 0.2}),
        (
            "cube-triple",
            0.99,
            0.5,
            {"qam": 3, "qam_f": (10, 300), "qam_e": (3, 0.1), "qsm": (10, 10), "dac": 0.3, "dsrl": 1.4, "expo": 0.3},
        ),
        ("puzzle-3x3", 0.99, 0.5, {"qam": 3, "qam_e": (1, 0.1), "qsm": (10, 30), "dac": 1, "dsrl": 1.0, "expo": 0.2}),
        ("scene", 0.99, 0.5, {"qam": 1, "qam_f": (1, 300), "qsm": (3, 30), "dac": 1, "dsrl": 0.4, "expo": 0.2}),
    ],
)
def test_values_of_qams_authors_are_those_of_their_commands(task, discount, pessimism, found):
    """experiments/reproduce.py of ColinQiyangLi/qam at f93efd2."""
    names = {"qam": ("beta",), "qam_f": ("beta", "alpha"), "qam_e": ("beta", "edit_scale")}
    names |= {"qsm": ("beta", "eta"), "dac": ("eta",), "dsrl": ("noise_scale",), "expo": ("edit_scale",)}
    arm = "maze" not in task
    for algo, values in found.items():
        [(job, _)] = jobs(f"algo={algo}", f"env=ogbench-{task}-{'play' if arm else 'navigate'}")
        assert job.config.chunk.length == (5 if arm else 1)
        assert job.config.dataset.sparse == task.startswith(("scene", "puzzle"))
        critic, settings = job.config.critic, job.config.algo
        expected = values if isinstance(values, tuple) else (values,)
        assert tuple(settings[name] for name in names[algo]) == expected, algo
        assert (critic.discount, critic.pessimism, critic.candidates) == (discount, pessimism, 1)
        assert (critic.ensemble, list(critic.hidden)) == (10, [512] * 4)
        assert settings.gradient_norm == (None if algo in ("dsrl", "expo") else 1.0)
        assert (critic.activation, critic.layer_norm, critic.aggregate) == ("gelu_tanh", True, "mean")
        assert list(job.config.network.hidden) == [512] * 4
        if algo in ("qsm", "dac"):
            model = job.config.model
            assert (settings.joint, settings.normalize, settings.eta_lr) == (True, False, 0)
            assert (model.path.steps, job.config.solver.steps, model.path.first_level) == (10, 10, 1)
            assert (settings.schedule, model.clip_denoised) == ("constant", algo == "dac")


@pytest.mark.parametrize(
    ("task", "lr", "alpha", "decays", "epochs", "expectile"),
    [
        ("pen-human-v1", 3e-5, 1500, True, 300, 0.9),
        ("pen-cloned-v1", 1e-5, 1500, False, 200, 0.7),
        ("kitchen-complete-v0", 1e-4, 200, True, 500, 0.7),
        ("kitchen-partial-v0", 1e-4, 100, True, 1000, 0.7),
        ("kitchen-mixed-v0", 3e-4, 200, True, 500, 0.7),
    ],
)
def test_values_of_dtql_are_those_of_its_authors_table(task, lr, alpha, decays, epochs, expectile):
    """main.py of TianyuCodings/Diffusion_Trusted_Q_Learning at 9a29cea."""
    [(job, _)] = jobs("algo=dtql", f"env={task}")
    algo, critic = job.config.algo, job.config.critic
    assert (algo.policy_lr, algo.behaviour_lr, critic.lr, algo.alpha) == (lr, lr, 3e-4, alpha)
    assert (algo.policy_schedule == "cosine", algo.policy_steps, critic.expectile) == (decays, 1000 * epochs, expectile)
    assert (algo.imitation, algo.policy_batch_size, algo.behaviour_batch_size, algo.behaviour_steps) == (
        0,
        256,
        256,
        50_000,
    )
    assert (job.config.dataset.reward, job.config.eval.episodes) == ("none", 100)


@pytest.mark.parametrize(
    ("task", "threshold", "pessimism"),
    [
        ("halfcheetah-medium-expert-v2", 0.1, 0.0),
        ("hopper-medium-expert-v2", 0.05, 1.5),
        ("hopper-medium-replay-v2", 1.0, 1.5),
        ("walker2d-medium-v2", 1.0, 1.0),
    ],
)
def test_values_of_dac_are_those_of_flow_rls_commands(task, threshold, pessimism):
    """scripts/d4rl/dac.sh of typoverflow/flow-rl at bae22f4."""
    [(job, _)] = jobs("algo=dac", f"env={task}")
    algo, critic = job.config.algo, job.config.critic
    assert (algo.eta, algo.eta_lr, algo.eta_threshold) == (1, 1e-3, threshold)
    assert (algo.schedule, algo.joint) == ("cosine", False)
    assert (critic.ensemble, critic.pessimism, critic.candidates, critic.over_candidates) == (10, pessimism, 10, "mean")
    assert (algo.steps, job.config.dataset.reward) == (2 * 10**6, "iql_locomotion")


@pytest.mark.parametrize(
    ("task", "alpha_q", "alpha", "threshold", "aggregate", "probes", "steps"),
    [
        ("ogbench-antmaze-large-navigate", 0.5, 0.1, "data", "min", None, 61_250),
        ("ogbench-humanoidmaze-medium-navigate", 0.5, 0.3, "row", "mean", 8, 122_250),
        ("ogbench-cube-single-play", 0.5, 10.0, "row", "mean", None, 61_250),
        ("walker2d-medium-replay-v2", 5.0, 0.1, "row", "min", None, 73_750),
        ("hopper-medium-v2", 5.0, 0.1, "row", "min", None, 61_250),
        ("hopper-medium-expert-v2", 5.0, 0.3, "row", "min", None, 122_250),
        ("antmaze-medium-play-v2", 0.5, 0.03, "data", "min", None, 61_000),
        ("hammer-human-v1", 0.5, 0.03, "row", "min", 8, 11_250),
        ("hammer-cloned-v1", 0.5, 1.0, "row", "min", 8, 61_000),
        ("pen-cloned-v1", 1.0, 0.1, "row", "min", 8, 121_250),
    ],
)
def test_values_of_fac_are_those_of_its_authors_commands(task, alpha_q, alpha, threshold, aggregate, probes, steps):
    """README.md of JongseongChae/FAC at a4f4dd4; 250 epochs of the flow, in batches by the size of the data."""
    [(job, _)] = jobs("algo=fac", f"env={task}")
    algo, critic = job.config.algo, job.config.critic
    assert (algo.alpha_q, algo.alpha, algo.threshold, algo.probes) == (alpha_q, alpha, threshold, probes)
    assert (critic.aggregate, critic.discount, algo.steps, algo.behaviour_steps) == (aggregate, 0.995, 10**6, steps)


def test_values_of_fql_on_locomotion_are_those_of_facs_baseline():
    """README.md and main_baselines.py of JongseongChae/FAC at a4f4dd4."""
    [(job, _)] = jobs("algo=fql", "env=walker2d-medium-v2")
    algo = job.config.algo
    assert (algo.alpha, algo.steps, algo.normalize, job.config.dataset.action_margin) == (300.0, 10**6, False, 1e-5)
    assert (job.config.critic.aggregate, job.config.critic.discount) == ("mean", 0.99)


@pytest.mark.parametrize(
    ("task", "alpha", "penalty", "discount", "aggregate", "steps"),
    [
        ("ogbench-antsoccer-arena-navigate", 10, 0.1, 0.995, "mean", 10**6),
        ("ogbench-cube-double-play", 100, 0, 0.995, "mean", 10**6),
        ("ogbench-puzzle-4x4-play", 100, 3, 0.995, "mean", 10**6),
        ("antmaze-large-play-v2", 3, 0.03, 0.99, "min", 500_000),
    ],
)
def test_values_of_fan_are_those_of_its_authors_commands(task, alpha, penalty, discount, aggregate, steps):
    """bash_scripts of brianlsy98/FAN at 0917d0d."""
    [(job, _)] = jobs("algo=fan", f"env={task}")
    algo, critic = job.config.algo, job.config.critic
    assert (algo.alpha, critic.penalty, critic.discount, critic.aggregate) == (alpha, penalty, discount, aggregate)
    assert (algo.steps, critic.noise_expectile, critic.layer_norm) == (steps, 0.9, True)


@pytest.mark.parametrize(("size", "alpha", "intervals"), [("large", 6000, 50), ("medium", 2000, 100)])
def test_values_of_meanflow_ql_are_those_of_its_authors_commands(size, alpha, intervals):
    """README.md of HiccupRL/MeanFlowQL at 3fab100."""
    [(job, _)] = jobs("algo=meanflow_ql", f"env=ogbench-humanoidmaze-{size}-navigate")
    config = job.config
    assert (config.algo.alpha, config.objective.intervals, config.critic.discount) == (alpha, intervals, 0.995)
    assert (config.select.num_candidates, config.algo.lr, config.critic.lr) == (5, 1e-4, 3e-4)


@pytest.mark.parametrize(
    ("task", "steps", "subset", "backup_entropy", "layers"),
    [
        ("halfcheetah-expert-v2", 250_000, 2, True, 2),
        ("antmaze-umaze-v2", 300_000, 1, False, 3),
        ("pen-human-v1", 1_000_000, 2, False, 3),
    ],
)
def test_values_of_rlpd_are_those_of_its_authors_commands(task, steps, subset, backup_entropy, layers):
    """README.md and configs/rlpd_config.py of ikostrikov/rlpd at c90fd4b."""
    [(job, _)] = jobs("algo=rlpd", f"env={task}")
    config = job.config
    assert (config.critic.subset, config.algo.backup_entropy, config.critic.ensemble) == (subset, backup_entropy, 10)
    assert list(config.critic.hidden) == list(config.network.hidden) == [256] * layers
    online = config.online
    assert (online.steps, online.start, online.random, online.updates) == (steps, 5000, 5000, 20)
    assert online.offline_ratio == 0.5
    assert (config.algo.policy_delay, config.algo.batch_size, config.algo.lr, config.critic.lr) == (20, 256, 3e-4, 3e-4)
    assert (config.scaling.observation, config.dataset.action_margin) == ("none", 1e-5)


@pytest.mark.parametrize(
    ("algo", "task", "eta", "lr", "norm", "steps", "reward"),
    [
        ("diffusion_ql", "pen-human-v1", 0.15, 3e-5, 7, 1_000_000, "standardize"),
        ("diffusion_ql", "kitchen-complete-v0", 0.005, 3e-4, 9, 250_000, "none"),
        ("consistency_ac", "pen-cloned-v1", 0.01, 3e-5, 8, 500_000, "standardize"),
        ("consistency_ac", "kitchen-mixed-v0", 0.5, 3e-4, 2, 1_500_000, "none"),
    ],
)
def test_values_of_diffusion_ql_and_consistency_ac_are_those_of_their_tables(algo, task, eta, lr, norm, steps, reward):
    """main.py of Diffusion-Policies-for-Offline-RL at d871f5c, offline.py of Consistency-AC's code at cdeae87."""
    [(job, _)] = jobs(f"algo={algo}", f"env={task}")
    config, consistency = job.config, algo == "consistency_ac"
    given = config.algo
    assert (given.eta, given.lr, given.gradient_norm, given.steps, config.critic.lr) == (eta, lr, norm, steps, 3e-4)
    assert (config.dataset.reward, config.critic.normalize, config.eval.episodes) == (reward, consistency, 100)
    if consistency:  # the grid grows anew every 50 epochs of 1,000 updates
        assert (config.objective.cycles, config.objective.scaled) == (steps // 50_000, True)


@pytest.mark.parametrize(
    ("task", "gmpo", "gmpg"),
    [
        ("halfcheetah-medium-expert-v2", (1, 100, 2000 * 488, 10_000 * 488), (4, 6, 2000 * 488, 2000 * 488, 500 * 49)),
        ("halfcheetah-medium-replay-v2", (4, 400, 12_000 * 50, 10_000 * 50), (4, 6, 2000 * 50, 12_000 * 50, 50 * 5)),
        ("hopper-medium-expert-v2", (1, 100, 5000 * 489, 10_000 * 489), (4, 3, 2000 * 489, 5000 * 489, 500 * 49)),
        ("hopper-medium-v2", (16, 1000, 5000 * 245, 10_000 * 245), (20, 3, 2000 * 245, 5000 * 245, 500 * 25)),
        ("walker2d-medium-v2", (8, 100, 5000 * 244, 10_000 * 244), (1, 6, 2000 * 244, 5000 * 244, 50 * 25)),
        ("dmc-cartpole-swingup", (1, 100, 20_000 * 10, 100_000 * 10), (4, 1, 20_000 * 10, 20_000 * 10, 300)),
        ("dmc-humanoid-run", (1, 100, 8000 * 733, 10_000 * 733), (4, 21, 4000 * 733, 8000 * 733, 500 * 74)),
        ("dmc-manipulator-insert-ball", (1, 100, 5000 * 367, 10_000 * 367), (4, 5, 4000 * 367, 8000 * 367, 500 * 37)),
    ],
)
def test_values_of_gmpo_and_gmpg_are_those_of_generative_rls_configurations(task, gmpo, gmpg):
    """grl_pipelines/benchmark of opendilab/GenerativeRL at 77ed957: epochs times updates; beta in bits a dimension."""
    found = {algo: jobs(f"algo={algo}", *words(task))[0][0].config for algo in ("gmpo", "gmpg")}
    parts = {"dmc-humanoid-run": [21, 1, 12, 3, 3, 27], "dmc-manipulator-insert-ball": [16, 8, 5, 4, 4, 3, 4]}
    assert [config.observation_parts for config in found.values()] == [parts.get(task, [])] * 2
    algo = found["gmpo"].algo
    assert (algo.beta, algo.weight_clamp, algo.critic_steps, algo.policy_steps) == gmpo
    algo, (beta, dimensions, *steps) = found["gmpg"].algo, gmpg
    assert algo.beta == pytest.approx(beta * dimensions * math.log(2), abs=5e-4)
    assert [algo.behaviour_steps, algo.critic_steps, algo.policy_steps] == steps
    for name, config in found.items():
        assert (config.critic.lr, config.critic.expectile, config.scaling.observation) == (3e-4, 0.7, "none")
        assert (config.algo.critic_batch_size, config.algo.policy_batch_size) == (4096, 4096 * (1, 10)[name == "gmpg"])
        assert config.dataset.reward == ("none" if task.startswith("dmc") else "iql_locomotion")


@pytest.mark.parametrize(
    ("task", "behaviour", "critic"),
    [
        ("hopper-medium-expert-v2", 977, 489),
        ("hopper-medium-replay-v2", 982, 197),
        ("walker2d-medium-v2", 977, 245),
        ("antmaze-large-play-v0", 976, 488),
    ],
)
def test_values_of_sfbc_are_those_of_its_authors_code(task, behaviour, critic):
    """train_behavior.py, train_critic.py and dataset/dataset.py of ChenDRAG/SfBC at d384e9f."""
    [(job, _)] = jobs("algo=sfbc", f"env={task}")
    algo, locomotion = job.config.algo, "antmaze" not in task
    assert (algo.behaviour_steps, algo.critic_steps) == (600 * behaviour, 100 * critic)
    assert job.config.select.num_averaged == (4 if locomotion else 1)
    assert list(job.config.critic.hidden) == ([512, 256, 256] if "large" in task else [256, 256])


@pytest.mark.parametrize(("algo", "margin"), [("iql", 1e-5), ("idql", 1e-5), ("edp", 1e-3), ("td3_bc", 0)])
@pytest.mark.parametrize("task", ["hopper-medium-v2", "antmaze-umaze-v0"])
def test_actions_are_clipped_as_in_the_authors_code(algo, margin, task):
    """dataset_utils.py of IQL's code, d4rl_datasets.py of IDQL's, trainer.py of EDP's, main.py of TD3+BC's."""
    [(job, _)] = jobs(f"algo={algo}", f"env={task}")
    assert job.config.dataset.action_margin == margin


def test_rebracs_rewards_in_mazes_are_raw():
    """configs/offline/rebrac/maze2d of tinkoff-ai/CORL at 6afec90; the embedded data's default is r - 1."""
    [(job, _)] = jobs("algo=rebrac", "env=maze2d-umaze-v1")
    assert job.config.dataset.reward == "none"


@pytest.mark.parametrize("task", ["pen-human-v1", "relocate-cloned-v1", "kitchen-mixed-v0"])
def test_values_of_iql_on_adroit_and_kitchen_are_those_of_its_authors(task):
    """configs/kitchen_config.py and train_offline.py of ikostrikov/implicit_q_learning at 09d7002."""
    [(job, _)] = jobs("algo=iql", f"env={task}")
    config = job.config
    assert (config.algo.beta, config.critic.expectile, config.network.dropout) == (0.5, 0.7, 0.1)
    assert (config.algo.steps, config.algo.batch_size, config.dataset.reward) == (10**6, 256, "none")
    assert (config.critic.discount, config.scaling.observation, config.dataset.action_margin) == (0.99, "none", 1e-5)
