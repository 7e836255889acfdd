"""The command line: what composes into which jobs, and what is refused with which words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import genpolicy, jobs, typed
from omegaconf import OmegaConf

from genpolicy import app
from genpolicy.config.arguments import CONF, options
from genpolicy.errors import UserError
from genpolicy.system.console import remark


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)


def job(*words):
    (single, _), *others = jobs(*words)
    assert not others
    return single


def test_the_default_job():
    default = job()
    assert default.config.mode == "train"
    assert default.config.seed == 0
    assert default.choices["algo"] == "gmpg"
    assert default.choices["env"] == "maze2d-umaze-v1"
    assert default.choices["likelihood"] == "rk4"
    assert default.choices["network"] == "mlp"
    assert default.config.paths.outputs == str(Path("outputs").absolute())
    assert default.config.paths.data == str(Path.home() / ".d4rl/datasets")
    assert not any(name.startswith("hydra") for name in {*default.config, *default.choices})


def test_the_data_folder_is_that_of_d4rl(monkeypatch, tmp_path):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "data"))
    assert job().config.paths.data == str(tmp_path / "data")


def test_a_path_may_begin_with_the_home_folder():
    assert job("paths.outputs=~/runs").config.paths.outputs == str(Path.home() / "runs")


def test_equal_values_make_equal_configurations():
    assert job("algo.beta=3").config == job("algo.beta=3.0").config == job("algo.beta='3e0'").config


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in options("env") if name != "gym"])  # which needs an id
def test_every_task_composes_and_chooses_its_data(name):
    kind = name.split("-")[0]
    chosen = job(f"env={name}", *([f"dataset.path={__file__}"] if kind == "dmc" else []))
    assert chosen.config.env.name == name
    expected = {
        "maze2d": "waypoint",
        "swiss": "swiss_roll",
        "multi": "multi_goal",
        "dmc": "rl_unplugged",
        "ogbench": "ogbench",
    }
    expected = expected.get(kind, "d4rl")
    assert chosen.choices["dataset"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("group", ["algo", "model", "network", "critic"])
def test_every_option_composes(group):
    for name in options(group):
        # Not all of them go with the default algorithm, but with behaviour cloning, of chunks.
        words = [f"{group}={name}"] + ([] if group == "algo" else ["algo=bc"])
        words += ["chunk.length=2"] if name == "unet1d" else []
        assert job(*words).choices[group] == name


def test_the_command_line_wins_over_what_a_task_chooses(tmp_path):
    write(tmp_path / "data.hdf5", "")
    own = job("env=hopper-medium-v2", "dataset=hdf5", "dataset.path=data.hdf5")
    assert own.choices["dataset"] == "hdf5"
    assert own.config.dataset.path == str(tmp_path / "data.hdf5")  # absolute: the run may be resumed from elsewhere
    assert job("network=residual").choices["network"] == "residual"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("algo=gmpg solver=sde", "solver: the policy gradient goes through an ODE solver"),
        ("algo=gmpg objective=score_matching", "objective.prediction=noise is ill-conditioned"),
        ("algo=gmpg model=vpsde objective.prediction=velocity", "objective.prediction=velocity is ill-conditioned"),
        ("algo=gmpo_softmax_fresh model=otcfm", "model: GMPO's softmax variants"),
        ("likelihood=dpm", "likelihood: needs an ODE solver"),
        ("network=residual network.hidden=[64,48]", "network.hidden=[64,48]: each width must be half"),
        ("network=residual network.hidden=[]", "network.hidden=[]: each width must be half"),
        ("env=hopper-medium-v2 dataset=waypoint", "dataset=waypoint does not go with env=hopper-medium-v2"),
        ("env=hopper-medium-v2 dataset=hdf5 dataset.path=nowhere.hdf5", "dataset.path: there is no file"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(words, reason, tmp_path):
    result = genpolicy(*words.split())
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"genpolicy: {reason}")
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_likelihood_takes_the_options_of_solver():
    chosen = job("likelihood=dopri5", "solver=euler")
    assert (chosen.choices["likelihood"], chosen.choices["solver"]) == ("dopri5", "euler")
    assert chosen.config.likelihood._target_.endswith("Dopri5")


def test_tuned_values_are_taken_for_their_algorithm_and_task_and_can_be_left_out(tmp_path):
    write(tmp_path / "conf/tuned/gmpo/hopper-medium-v2.yaml", "# @package _global_\nalgo:\n  beta: 7\n")
    assert job("algo=gmpo", "env=hopper-medium-v2").config.algo.beta == 7.0
    assert job("algo=gmpo", "env=hopper-medium-v2", "algo.beta=8").config.algo.beta == 8.0
    plain = job("algo=gmpo", "env=hopper-medium-v2", "tuned=none").config.algo.beta
    assert plain == job("algo=gmpo", "env=hopper-medium-v2", "~tuned").config.algo.beta != 7.0
    betas = [each.config.algo.beta for each, _ in jobs("-m", "algo=gmpo", "env=hopper-medium-v2,hopper-random-v2")]
    assert betas == [7.0, job("algo=gmpo", "env=hopper-random-v2").config.algo.beta]
    assert genpolicy("tuned=gmpo/typo").err.startswith("genpolicy: tuned=gmpo/typo: no such option; ")


@pytest.mark.parametrize("name", [*options("experiment")])
def test_every_experiment_composes_with_every_algorithm(name):
    for algo in options("algo"):
        assert job(f"experiment={name}", f"algo={algo}", "env=hopper-medium-v2").choices["experiment"] == name


def test_own_options_are_found_and_come_first(tmp_path):
    write(tmp_path / "conf/algo/mine.yaml", "# Mine\ndefaults: [bc, _self_]\nbehaviour_steps: 3\n")
    write(
        tmp_path / "conf/network/mlp.yaml",
        (CONF / "network/mlp.yaml").read_text() + "hidden: [7]\n",
    )
    mine = job("algo=mine")
    assert mine.config.algo.behaviour_steps == 3
    assert list(mine.config.network.hidden) == [7]
    assert "\n  mine " in genpolicy("--help", "algo").out
    write(tmp_path / "conf/config.yaml", "another: program\n")
    remark.cache_clear()
    said, refused, _ = genpolicy("algo=mine").err.split("\n")
    assert said.startswith(
        "./conf has a config.yaml and is not taken for genpolicy's options (conf/algo, conf/network)"
    )
    assert refused.startswith("genpolicy: algo=mine: no such option")


def test_a_sweep_is_every_combination_of_checked_jobs_under_one_name():
    started = jobs("algo=bc,gmpo", "-m", "seed=range(3)")
    assert [(each.choices["algo"], each.config.seed) for each, _ in started] == [
        (algo, seed) for algo in ("bc", "gmpo") for seed in range(3)
    ]
    names = {name for _, name in started}
    assert len(names) == 1
    assert names == {name for _, name in jobs("-m", "seed=2,1,0", "algo=gmpo,bc")}
    assert names.isdisjoint(name for _, name in jobs("-m", "seed=0,1", "algo=gmpo,bc"))
    assert names.isdisjoint(name for _, name in jobs("-m", "seed=0,1,2", "algo=gmpo,bc", "study=other"))


def test_sets_of_tasks_and_patterns():
    tasks = [each.config.env.name for each, _ in jobs("-m", "env=locomotion,maze2d-umaze-v1,hopper-medium-v2")]
    assert len(tasks) == len(set(tasks)) == 10
    tasks = [each.config.env.name for each, _ in jobs("-m", "env=glob([hopper*],exclude=*expert*)")]
    assert tasks == ["hopper-medium-replay-v2", "hopper-medium-v2", "hopper-random-v2"]


def test_a_sweep_with_one_bad_job_starts_none(monkeypatch):
    monkeypatch.setattr(app, "start", lambda *_, **__: pytest.fail("started"))
    result = genpolicy("-m", "algo=gmpg,bc", "algo.beta=1")
    assert result.code == 1
    assert "algo.beta" in result.err


def test_a_failed_job_does_not_stop_the_sweep(monkeypatch):
    started = []

    def start(each, sweep):
        started.append(each.config.seed)
        if each.config.seed == 1:
            raise UserError("out of luck")

    monkeypatch.setattr(app, "start", start)
    result = genpolicy("-m", "seed=0,1,2", "algo=bc")
    assert started == [0, 1, 2]
    assert result.code == 1
    assert result.err.splitlines() == [
        "genpolicy: job 2 of 3: seed=1: out of luck",
        "genpolicy: 1 of 3 jobs failed: 2 (seed=1)",
    ]
    assert result.out.splitlines() == [f"job {number} of 3: seed={number - 1}" for number in (1, 2, 3)]


def test_ctrl_c_ends_with_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "start", interrupted)
    assert genpolicy().code == 130
    assert genpolicy("-m", "seed=0,1").code == 130


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (["division\nby zero"], "ZeroDivisionError: division by zero"),
        (["There is none.", "Make\none"], "ZeroDivisionError: There is none. Make one"),
        ([], "ZeroDivisionError"),
    ],
)
def test_a_defect_is_one_line_and_its_traceback_on_request(monkeypatch, said, shown):
    def defect(*_, **__):
        raise ZeroDivisionError(*said)

    monkeypatch.setattr(app, "start", defect)
    result = genpolicy()
    assert (result.code, result.err) == (1, f"genpolicy: {shown}\n")
    with pytest.raises(ZeroDivisionError):
        genpolicy("genpolicy.debug=true")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("algo=gmpf", "algo=gmpf: no such option; did you mean gmpo? legal: gmpo, gmpg, "),
        (
            "critic=double_q tuned=none",
            "critic: needs actions of the policy, trained after it; legal: critic=in_support|iql|",
        ),
        (
            "algo=gtp critic=in_support",
            "critic: needs a behaviour model, which this algorithm lacks; legal: critic=",
        ),
        ("algo=bc objective=meanflow", "objective: does not fit this model; legal: objective=edm|"),
        ("algo=gtp objective=consistency", "solver: uses a solution map"),
        ("algo=bc model=gvp solver=renoise", "solver: uses a map to the data end"),
        (
            "algo=consistency_ac solver=midpoint",
            "solver: uses a flow's field, which this objective does not teach; legal: solver=one_jump|renoise, or obj",
        ),
        ("algo=gtp objective=shortcut objective.intervals=100", "objective.intervals=100: must be a power of two"),
        ("eval.steps=[2,1]", "eval.steps=[2, 1]: must increase"),
        ("solver=dopri5 eval.steps=[1,2]", "eval.steps: this solver chooses its steps itself"),
        ("solver=dopri5 compile=default", "compile: this solver chooses its steps itself"),
        ("env=hopper-medium-v2 dataset=multi_goal", "dataset=multi_goal does not go with env=hopper-medium-v2"),
        ("algos=gmpg", "algos: no such setting; did you mean algo? legal: algo, "),
        ("+algo.bet=3", "algo.bet: algo=gmpg has no such setting; did you mean beta? legal: "),
        ("algo.bet=3", "algo.bet: algo=gmpg has no such setting; did you mean beta? legal: "),
        ("algo.beta=abc", "algo.beta: 'abc' is not of type float"),
        ("algo.beta=-1", "algo.beta: -1.0 must be > 0"),
        ("algo.beta=???", "algo.beta must be given ("),
        ("algo.beta=${x}", "algo.beta: Interpolation key 'x' not found"),
        ("seed=range(3", "cannot read 'seed=range(3'; the forms are 3, [1,2], "),
        ("seed=-1", "seed: -1 must be >= 0"),
        ("seed=0,1", "seed=0,1: several values are a sweep; add -m"),
        ("algo=bc,gmpg", "algo=bc,gmpg: several values are a sweep; add -m"),
        ("-m seed=interval(0,1)", "seed=interval(0,1): an interval cannot be enumerated; list the values"),
        ("-m algo=glob(zz*)", "the sweep is empty: one of its patterns matches no option"),
        ("env=locomotion", "env=locomotion: a set of tasks; add -m to train on each of them"),
        (
            "-m env=choice(locomotion,gym)",
            "env=choice(locomotion,gym): locomotion is a set of tasks; write env=locomotion alone, with -m",
        ),
        ("likelihood=rk5", "likelihood=rk5: no such option; did you mean rk4? legal: "),
        ("network=3", "network=3: no such option; legal: "),
        ("network=null", "network=null: no such option; legal: "),
        ("network._target_=os.system", "network._target_: os.system is not a class of genpolicy"),
        ("mode=evil", "mode: evil is none of train, eval, sync"),
        ("mode=eval", "mode=eval needs checkpoint=<run directory, checkpoint or MLflow run id>"),
        ("checkpoint=x", "checkpoint=x: goes with mode=eval or mode=inspect or mode=export"),
        ("mode=export checkpoint=x eval.episodes=5", "eval.episodes=5: goes with mode=train or mode=eval"),
        ("mode=sync seeds=0,1", "seeds=[0,1]: goes with mode=train"),
        ("mode=status budget=0.1", "budget=0.1: goes with mode=train"),
        (
            "mode=tasks algo=bc",
            "algo=bc: mode=tasks takes no such setting; legal: device, genpolicy, launch, mode, paths, ",
        ),
        ("mode=clean study=x", "study=x: goes with mode=train or mode=status or mode=report"),
        ("mode=eval checkpoint=x seed=1", "seed=1: goes with mode=train or mode=collect"),
        ("online.noise=0.1", "online.noise=0.1: goes with online.steps, which is 0"),
        ("select.steps=5", "select.steps: select=none has no such setting; it has none"),
        ("eval.steps=3", "eval.steps: 3 is not of type list[int]; write it as in eval.steps=[3]"),
        ("mode=eval checkpoint=x algo=bc", "algo=bc: mode=eval takes no such setting; "),
        ("collect.steps=5", "collect.steps=5: goes with mode=collect"),
        ("mode=check report.filter=x", "report.filter=x: goes with mode=report"),
        (f"study={'x' * 101}", "study: a name of 101 characters; legal: at most 100"),
        ("study=a/../b", "study: 'a/../b' is not a plain folder name of letters, digits and ._-"),
        ("paths.outputs=", "paths.outputs: must name a folder"),
        (
            "paths.outputs=s3://b/x",
            "s3://b/x: an address, where a file or folder of this machine is meant; give its path",
        ),
        ("dataset=npz dataset.path=https://h/x.npz", "https://h/x.npz: an address, where a file or folder"),
        (
            "dataset=npz dataset.path=1.10",
            "dataset.path: 1.1 is no text; quote one that looks like it: '1.10' in a file, ",
        ),
        ("phases.reuse=maybe", "phases.reuse: maybe is none of true, false, any"),
        ("compile=true", "compile: true is none of none, default, "),
        ("device=tpu", "device: tpu is none of auto, cpu, cuda"),
        ("overwrite=maybe", "overwrite: 'maybe' is not of type bool"),
        ("tracking=3", "tracking: must be a group of settings, not 3"),
        ("~algo", "~algo: only ~tuned and ~experiment can be left out"),
        ("hydra.run.dir=x", "hydra.run.dir: genpolicy arranges this itself; say paths.outputs=<folder> study=<name>"),
        ("hydra.verbose=true", "hydra.verbose: genpolicy arranges this itself; legal: hydra/launcher, hydra/sweeper"),
        ("hydra/launcher=basic", "hydra/launcher=basic: no such option; legal: here, local, slurm"),
        ("trains", "'trains' is not of the form key=value; see genpolicy --help"),
        ("--hydra-help", "--hydra-help: no such flag; legal: --help, --multirun"),
        ("--config-name x", "--config-name: no such flag; files of your own lie in ./conf/<group>/<option>.yaml, "),
        ("-cd conf", "-cd: no such flag; files of your own lie in ./conf/<group>/<option>.yaml, "),
        ("--cfg", "--cfg: needs one of job, hydra, all"),
        ("--cfg fog", "--cfg fog: needs one of job, hydra, all"),
        ("--resolve", "--resolve goes with --cfg job"),
        ("-sc install=csh", "-sc: needs install=bash, or uninstall=bash; legal: bash, fish, zsh"),
        ("-sc", "-sc: needs install=bash, "),
        ("-sc query=bash", "-sc query=bash: is asked by the shell itself, "),
        ("tuned=null", "tuned=null: no such option; say tuned=none"),
        ("select=null", "select=null: no such option; say select=none"),
        ("~tuned=bc", "~tuned=bc: only ~tuned and ~experiment can be left out"),
        ("--package algo", "--package algo goes with --cfg job"),
        ("algo==bc", "cannot read 'algo==bc'; say algo=bc"),
        ("network.hidden=[64", "cannot read 'network.hidden=[64'; the forms are 3, [1,2], {a:1}, "),
        ("study=a;b", "cannot read 'study=a;b'; text with such characters is quoted, for the shell and in itself: "),
        ("-m seed=range(3,1)", "the sweep is empty: one of its patterns matches no option, or one of its ranges "),
        ("-m algo.beta=-1", "algo.beta: -1.0 must be > 0.0\n"),
        ("-m algo.beta=-1,2", "algo.beta: -1.0 must be > 0.0 (in the job algo.beta=-1)\n"),
        ("--cfg job -m", "--cfg=job and --multirun do not go together"),
        (
            "-m algo=gmpg,bc algo.beta=1",
            "algo.beta: algo=bc has no such setting; give it to a sweep over algo=gmpg alone",
        ),
        ("--help algos", "--help algos: ask for a group, such as algo, an option, such as algo=gmpg, or settings; "),
        ("--help algo=gmpf", "algo=gmpf: no such option; did you mean gmpo? "),
    ],
)
def test_what_is_wrong_and_what_would_be_right(words, message, tmp_path):
    result = genpolicy(*words.split())
    assert result.code == 1
    assert result.err.startswith(f"genpolicy: {message}"), result.err
    assert result.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["2026_11_29", "1.10", "1e3", "007", "true", "nan", "2026-11-29", "v1"])
def test_a_name_is_what_was_typed(name):
    [(job, _)] = jobs(f"study={name}", f"paths.outputs={name}")
    assert (job.config.study, os.path.basename(job.config.paths.outputs)) == (name, name)
    assert [job.config.study for job, _ in jobs("-m", f"study=x,{name},1.1")] == ["x", name, "1.1"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("range(0.1,0.5,0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("sort(range(0.1,0.5,0.1),reverse=true)", [0.4, 0.3, 0.2, 0.1]),
        ("range(0.3,0.9,0.3)", [0.3, 0.6]),  # where adding 0.3 in floats comes out below 0.9
        ("range(1,4)", [1.0, 2.0, 3.0]),
    ],
)
def test_a_range_has_the_values_that_one_would_type(values, expected):
    assert [job.config.algo.beta for job, _ in jobs("-m", "algo=gmpo", f"algo.beta={values}")] == expected


def test_no_gpu_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in (["device=cuda"], ["-m", "device=cuda", "seed=0,1"], ["mode=status", "device=cuda"]):
        said = genpolicy(*words).err
        assert said == "genpolicy: device=cuda: torch finds no GPU here; use device=cpu or device=auto\n"
    assert genpolicy("compile=cudagraphs").err == (
        "genpolicy: compile=cudagraphs: goes with a GPU, not with the CPU; use compile=none or compile=default\n"
    )


def test_main_leaves_the_process_as_it_found_it():
    arguments, variables = list(sys.argv), dict(os.environ)
    genpolicy("--cfg", "job")
    genpolicy("algo=nothing")
    assert (sys.argv, dict(os.environ)) == (arguments, variables)


def test_the_composed_configuration_can_be_looked_at():
    result = typed("--cfg=job", "algo=bc", "-p", "algo")
    assert result.code == 0
    assert result.out.startswith("# @package algo\n_target_: genpolicy.algo.bc.BC\n")
    whole = yaml.safe_load(typed("--cfg", "job", "algo=bc", "seed=3", "eval={episodes: 2}").out)
    [(checked, _)] = jobs("algo=bc", "seed=3", "eval.episodes=2")
    assert whole == OmegaConf.to_container(checked.config)
    assert typed("--cfg", "job", "--package", "eval.episodes").out == "10\n"
    assert typed("--cfg", "job", "--package", "eval.episode").err == (
        "genpolicy: --package eval.episode: the configuration has no such part\n"
    )
    for question in ("--cfg=all", "--info=config"):
        assert "seed: 3\n" in typed(question, "algo=bc", "seed=3").out
    assert "minutes: 30" in typed("--cfg", "job", "hydra/launcher=slurm", "launch.minutes=30").out
    assert (
        "objective: does not fit this model" in typed("--cfg", "job", "algo=bc", "model=gaussian", "objective=edm").err
    )


def test_completion_passes_through(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "genpolicy env=hopper-me")
    monkeypatch.setenv("COMP_POINT", "23")
    result = genpolicy("-sc", "query=bash")
    assert result.code == 0
    assert set(result.out.split()) == {f"env=hopper-medium{kind}-v2" for kind in ("", "-replay", "-expert")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "algo=gmpg algo.behaviour_",
            {f"algo.behaviour_{rest}=" for rest in ("steps", "batch_size", "lr", "schedule", "weight_decay")},
        ),
        ("seed=3 log_e", {"log_every="}),
        ("likelihood=r", {"likelihood=renoise", "likelihood=rk4"}),
        ("like", {"likelihood=", "likelihood."}),
        ("-m env=loc", {"env=locomotion"}),
        ("env=loc", set()),
        ("-m env=locomotion log_e", {"log_every="}),
        ("algo=bc eval.ep", {"eval.episodes="}),
    ],
)
def test_settings_that_no_file_lists_are_completed(monkeypatch, line, expected):
    monkeypatch.setenv("COMP_LINE", f"genpolicy {line}")
    monkeypatch.setenv("COMP_POINT", str(len(f"genpolicy {line}")))
    result = genpolicy("-sc", "query=bash")
    assert result.code == 0
    assert set(result.out.split()) == expected


def test_a_real_process_says_it_in_one_line(tmp_path):
    command = [sys.executable, "-m", "genpolicy.app", "algo=gmpf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert os.listdir(tmp_path) == []


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
