"""A folder `./conf` from other people: its options give values to settings, and nothing more comes of them."""

import os
import re
import subprocess
import sys

import pytest
from command_line import genpolicy, jobs, tried
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from genpolicy.config.arguments import CONF, options

MODULE = "stranger"  # whose import leaves a file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that was downloaded, as the working folder; a module can be imported from `elsewhere`."""
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / f"{MODULE}.py", f"open({str(tmp_path / 'ran')!r}, 'w')\ndef call(*a, **k): pass\n")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(MODULE, None)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "outputs").exists()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CALL = f"_target_: {MODULE}.call"
GLOBAL = "# @package _global_\n"
NODE = f"hydra: {{callbacks: {{x: {{{CALL}}}}}}}"
LOGGING = f"{{version: 1, filters: {{x: {{(): {MODULE}.call}}}}}}"
# Each is the files of a ./conf: ways to reach the node of which Hydra makes objects.
REACHED = {
    "node": {"algo/mine": f"{GLOBAL}{NODE}"},
    "launcher": {"algo/mine": f"{GLOBAL}hydra: {{launcher: {{{CALL}}}}}"},
    "logging": {"algo/mine": f"{GLOBAL}hydra: {{job_logging: {LOGGING}}}"},
    "hydra_logging": {"algo/mine": f"{GLOBAL}hydra: {{hydra_logging: {LOGGING}}}"},
    "searchpath": {"algo/mine": f"{GLOBAL}hydra: {{searchpath: ['pkg://{MODULE}']}}"},
    "environment": {"algo/mine": f"{GLOBAL}hydra: {{job: {{env_set: {{PYTHONPATH: x}}}}}}"},
    "merged key": {"algo/mine": f"{GLOBAL}x: &x {{hydra: {{callbacks: {{x: {{{CALL}}}}}}}}}\n<<: *x"},
    "package": {"algo/mine": f"# @package hydra.callbacks\nx: {{{CALL}}}"},
    "global package": {"algo/mine": f"# @package _global_.hydra.callbacks\nx: {{{CALL}}}"},
    "spaced package": {"algo/mine": f"#   @package   hydra.callbacks\nx: {{{CALL}}}"},
    "package in brackets": {"algo/mine": f"# @package [hydra][callbacks]\nx: {{{CALL}}}"},
    "package of the root": {"algo/mine": f"# @package hydra\ncallbacks: {{x: {{{CALL}}}}}"},
    "group package": {"algo/mine": f"# @package _group_.hydra\n{CALL}"},
    "override": {"algo/mine": "defaults: [bc, override /hydra/launcher: local, _self_]"},
    "listed override": {"algo/mine": "defaults:\n- bc\n- override /hydra/job_logging: default\n- _self_"},
    "added group": {"algo/mine": "defaults: [bc, /hydra/output: default, _self_]"},
    "own group": {"algo/mine": "defaults: [bc, /hydra/callbacks: mine]", "hydra/callbacks/mine": f"x: {{{CALL}}}"},
    "own launcher": {"hydra/launcher/here": CALL, "algo/mine": "defaults: [bc, _self_]"},
    "elsewhere": {"algo/mine": "defaults: [bc, /model@hydra.callbacks.x: mine, _self_]", "model/mine": CALL},
    "globally elsewhere": {"algo/mine": "defaults: [bc, /model@_global_.hydra.callbacks.x: mine]", "model/mine": CALL},
    "a packaged one": {"algo/mine": "defaults: [bc, /model@hydra.callbacks.x: gvp, _self_]"},
    "as a file": {"algo/mine": "defaults: [bc, /model/mine@hydra.callbacks.x, _self_]", "model/mine": CALL},
    "of the root": {"algo/mine": "defaults: [bc, /mine, _self_]", "mine": NODE},
    "from the root": {"algo/mine": "defaults: [bc, /mine]", "mine": f"defaults: [hydra/x@hydra]\nx: {{{CALL}}}"},
    "two steps": {
        "algo/mine": "defaults: [bc, /model: mine, _self_]",
        "model/mine": f"{GLOBAL}defaults: [/network@hydra.callbacks: mine]",
        "network/mine": f"x: {{{CALL}}}",
    },
    "chosen by name": {
        "algo/mine": "defaults: [bc, '/${model}/callbacks/x', _self_]",
        "hydra/callbacks/x": f"x: {{{CALL}}}",
    },
    "by way of a parent": {"algo/mine": "defaults: [bc, /algo/../hydra/launcher: local, _self_]"},
    "optional": {"algo/mine": "defaults: [bc, optional /hydra/launcher@hydra.callbacks.x: local, _self_]"},
    "keyword twice": {"algo/mine": "defaults: [bc, optional override /hydra/launcher: local, _self_]"},
    "mapping": {"algo/mine": "defaults: {/hydra/launcher: local}"},
    "the default option": {"algo/gmpg": f"{GLOBAL}{NODE}", "algo/mine": "defaults: [gmpg]"},
}
COMMANDS = {
    "train": ["algo=mine"],
    "status": ["algo=mine", "mode=status"],
    "sweep": ["-m", "algo=mine,mine", "seed=0,1"],
    "cfg": ["--cfg", "job", "algo=mine"],
    "info": ["--info", "defaults", "algo=mine"],
    "help": ["--help", "algo=mine"],
}


@pytest.mark.parametrize("way", REACHED)
def test_no_option_reaches_hydras_own_configuration(folder, way):
    for name, text in REACHED[way].items():
        write(folder / "conf" / f"{name}.yaml", text + "\n")
    for words in COMMANDS.values() if way in ("node", "own launcher") else [COMMANDS["train"]]:
        result, started = tried(*words)
        assert result.code == 1, (words, result.out)
        assert result.err.startswith(f"genpolicy: {folder / 'conf'}/")
        assert result.err.count("\n") == 1
        assert started == []


def test_completion_makes_nothing(folder, monkeypatch):
    write(folder / "conf/algo/mine.yaml", REACHED["node"]["algo/mine"])
    monkeypatch.setenv("COMP_LINE", "genpolicy algo=mine algo.")
    genpolicy("-sc", "query=bash")


def test_options_of_ones_own_are_what_they_were(folder):
    """Everything that is legal in them, and Hydra's node stays the packaged one."""
    write(
        folder / "conf/algo/mine.yaml",
        "# Mine\ndefaults: [bc, override /model@_global_.model: icfm, _self_]\nbehaviour_steps: 3\n",
    )
    text = "defaults:\n- override /network@_global_.network: mlp\n- _self_\nseed: 4\nlog_every: ${seed}\n"
    write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}{text}")
    words = ["algo=mine", "experiment=mine"]
    result, ((job, _),) = tried(*words)
    assert result.code == 0, result.err
    assert (job.config.algo.behaviour_steps, job.config.seed, job.config.log_every) == (3, 4, 4)
    assert (job.choices["network"], job.choices["model"]) == ("mlp", "icfm")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        nodes = [hydra_compose("config", given, return_hydra_config=True).hydra for given in (words, ["algo=bc"])]
    plain = [OmegaConf.to_container(node, resolve=False) for node in nodes]
    for node in plain:
        del node["overrides"], node["runtime"], node["job"]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(
    ("file", "text", "words", "said"),
    [
        ("algo/mine", "defaults: [bc]\nbet: 3\n", "algo=mine", "algo=mine has no such setting; .*algo/mine.yaml"),
        (
            "algo/mine",
            "defaults: [bcc]\n",
            "algo=mine",
            "algo=bcc, which a file chooses: no such option; did you mean bc",
        ),
        ("algo/mine", "defaults: [/model: gv]\n", "algo=mine", "model=gv, which a file chooses: no such option; did "),
        (
            "experiment/mine",
            f"{GLOBAL}algo: {{bet: 3}}\n",
            "experiment=mine",
            "it comes from experiment=mine .*mine.yaml",
        ),
        ("experiment/mine", f"{GLOBAL}algo: {{bet: 3}}\n", "experiment=[short,mine]", "it comes from experiment=mine "),
        ("experiment/mine", f"{GLOBAL}eval: {{episode: 3}}\n", "experiment=mine", "it comes from experiment=mine "),
        ("experiment/mine", "seed: 3\n", "experiment=mine", "experiment=mine: .* begins with .*# @package _global_"),
        ("experiment/mine", "", "experiment=[mine,short]", "experiment=.mine,short.: .* begins with .*# @package _glo"),
        (
            "experiment/mine",
            f"{GLOBAL}defaults: [override /likelihood: rk4]",
            "experiment=mine",
            "/solver@_global_.like",
        ),
        (
            "algo/mine",
            "defaults: [bc, override /network: mlp]",
            "algo=mine",
            "override /network@_global_.network: <opt",
        ),
        (
            "algo/mine",
            "defaults: [bc, override /solver@likelihood: rk4]",
            "algo=mine",
            "/solver@_global_.likelihood: <",
        ),
        ("algo/mine", "defaults: [mine]\n", "algo=mine", "algo/mine.yaml: builds on itself"),
        ("tuned/bc/swiss-roll", "seed: 3\n", "env=swiss-roll algo=bc", "tuned=bc/swiss-roll: .*# @package _global_"),
        (
            "cluster/mine",
            "cpus: 3\n",
            "-m hydra/launcher=slurm cluster=mine",
            "cluster=mine: .* with .*# @package launch",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_of_it(folder, file, text, words, said):
    write(folder / f"conf/{file}.yaml", text)
    result, started = tried(*words.split())
    assert (result.code, result.err.count("\n"), started) == (1, 1, [])
    assert re.search(said, result.err), result.err


def test_what_a_file_asks_of_another_mode_is_refused(folder):
    for text, said in (
        ("checkpoint: x", "checkpoint=x: goes with mode=eval or mode=inspect or mode=export"),
        ("sweep: 0a1b2c3d", "sweep=0a1b2c3d: goes with mode=status or mode=report"),
        ("follow: true", "follow=True: goes with mode=sync"),
    ):
        write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}{text}\n")
        result, started = tried("algo=bc", "experiment=mine")
        assert (result.code, result.err) == (1, f"genpolicy: {said}\n")
        assert started == []


SECRETS = {
    "environment": "# @package _global_\nenv: {url: 'http://127.0.0.1:9/${oc.env:SECRET}/x.hdf5'}",
    "nested": "behaviour_steps: ${oc.decode:${oc.env:SECRET}}",
    "key": "'${oc.env:SECRET}': 1",
    "in a list": "x: [[1, '${oc.env:SECRET}']]",
    "hydra": "behaviour_steps: ${hydra:job.num}",
}


@pytest.mark.parametrize("what", SECRETS)
def test_no_option_reads_what_is_not_in_it(folder, monkeypatch, what):
    monkeypatch.setenv("SECRET", "12345")
    write(folder / "conf/algo/mine.yaml", f"{SECRETS[what]}\n".replace("_global_\n", "_global_\ndefaults: [bc]\n"))
    for words in (["algo=mine"], ["--cfg", "job", "algo=mine"], ["--help", "algo=mine"]):
        result, started = tried(*words)
        assert result.code == 1
        assert "only references to other settings" in result.err
        assert "12345" not in result.out + result.err
        assert started == []


LAUGHS = [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
BOMBS = {
    "aliases": "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *LAUGHS]),
    "depth": "a: " + "[" * 20_000,
    "blocks": "- " * 20_000 + "x",
    "length": "a: " + "x" * 2**21,
    "number": "a: " + "9" * 100_000,
    "no text": "a: \x00\x01",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_options_that_grow_are_refused_at_once(folder, kind):
    write(folder / "conf/algo/mine.yaml", BOMBS[kind])
    write(folder / "conf/taskset/mine.yaml", BOMBS[kind])
    for words in (["algo=mine"], ["--help", "algo=mine"], ["-m", "env=mine"]):
        result, _ = tried(*words)
        assert result.code == 1
        assert result.err.count("\n") == 1
        assert len(result.err) < 600


def test_what_is_no_file_is_no_option(folder):
    (folder / "conf/algo/folder.yaml").mkdir(parents=True)
    os.mkfifo(folder / "conf/algo/pipe.yaml")
    (folder / "conf/algo/device.yaml").symlink_to("/dev/zero")
    (folder / "conf/algo/broken.yaml").symlink_to(folder / "nowhere")
    assert not {"folder", "pipe", "device", "broken"} & options("algo").keys()
    assert genpolicy("--help").code == 0
    assert "no such option" in genpolicy("algo=pipe").err


def test_options_that_build_on_one_another_are_a_line(folder):
    write(folder / "conf/algo/mine.yaml", "defaults: [yours@_here_]\n")
    write(folder / "conf/algo/yours.yaml", "defaults: [mine@_here_]\n")
    result = genpolicy("--help", "algo=mine")
    assert result.code == 1
    assert "builds on itself" in result.err


@pytest.mark.slow
def test_modules_in_the_working_folder_are_not_imported(folder):
    """Whoever runs the command, as it is installed, in a folder with modules of well-known names."""
    for name in ("torch", "mlflow", "genpolicy", "hydra", "yaml", "hydra_plugins/evil", "conf", "sitecustomize"):
        write(folder / f"{name}.py" if "/" in name else folder / name / "__init__.py", "open('ran', 'w')\n")
    code = "import sys; sys.argv[0] = 'genpolicy'; from genpolicy.app import main; main()"
    script = folder / "bin" / "genpolicy"
    write(script, code)
    done = subprocess.run([sys.executable, script, "--cfg", "job"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_values_in_a_file_are_what_the_same_words_are_on_the_command_line(folder):
    text = "study: 2026_11_29\nseed: 0012\nlog_every: 1_000\nalgo: {behaviour_lr: 1e-4, behaviour_steps: 1.0e+3}\n"
    write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}{text}launch: {{minutes: 12:00:00, qos: 0123}}\n")
    [(job, _)] = jobs("-m", "hydra/launcher=slurm", "algo=bc", "experiment=mine")
    assert (job.config.study, job.config.seed, job.config.log_every) == ("2026_11_29", 12, 1000)
    assert (job.config.algo.behaviour_lr, job.config.algo.behaviour_steps) == (1e-4, 1000)
    assert (job.config.launch.minutes, job.config.launch.qos) == (720, "0123")
    for text, shown in ("study: 1.10", "1.1"), ("paths: {outputs: yes}", "true"):
        write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}{text}\n")
        said = genpolicy("algo=bc", "experiment=mine").err
        assert re.match(rf"genpolicy: [a-z.]+: {shown} is no text; quote one that looks like it: ", said), said


def test_that_a_run_is_deleted_is_said_on_the_command_line(folder):
    write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}overwrite: true\n")
    said = genpolicy("algo=bc", "experiment=mine").err
    assert said == "genpolicy: overwrite: deletes a run; give it on the command line, not in a file of options\n"
    assert jobs("algo=bc", "experiment=mine", "overwrite=true")[0][0].config.overwrite


@pytest.mark.parametrize("name", ["tracking: {uri: 'http://127.0.0.1:9'}", "search: {storage: 'sqlite:///x.db'}"])
def test_where_data_are_sent_is_said_on_the_command_line(folder, name):
    steps = "behaviour_steps: 3, behaviour_batch_size: 2, behaviour_lr: 0.1"
    write(folder / "conf/algo/gmpg.yaml", f"{GLOBAL}{name}\nalgo: {{_target_: genpolicy.algo.bc.BC, {steps}}}\n")
    setting = name.replace(": {", ".").partition(":")[0]
    beside = "tracking={model:false}" if "tracking" in name else "search={trials:3}"
    for words in (["tuned=none"], ["tuned=none", beside], ["mode=status"], ["mode=sync"]):
        words += ["-m", "hydra/sweeper=optuna", "eval.episodes=1,2"] if words[-1].startswith("search") else []
        result, started = tried(*words)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert f"{setting}: says where data are sent" in result.err
        assert started == []
    result, _ = tried("-m", "hydra/sweeper=optuna", "algo=bc", "eval.episodes=1,2", "search.trials=0")
    assert "says where" not in result.err
    for said in "tracking.uri=http://127.0.0.1:9", "tracking={uri:'http://127.0.0.1:9'}":
        assert tried("algo=bc", said)[0].code == 0


def test_lines_for_a_shell_are_those_of_the_cluster_that_the_command_names(folder):
    write(folder / "conf/experiment/mine.yaml", f"{GLOBAL}launch: {{setup: [touch ran], gpus: 2}}\n")
    write(folder / "conf/cluster/mine.yaml", "# @package launch\nsetup: [module load cuda]\n")
    launch = ["-m", "hydra/launcher=local", "algo=bc"]
    for more in ([], ["cluster=mine"], ["launch={dry_run:true}"]):
        more = ["experiment=mine", *more]
        result, started = tried(*launch, *more)
        assert "launch.setup: lines for a shell" in result.err
        assert started == []
    result, ((job, _),) = tried(*launch, "cluster=mine")
    assert (result.code, list(job.config.launch.setup)) == (0, ["module load cuda"])
    for said in "launch.setup=[ls]", "launch={setup:[ls]}":
        result, ((job, _),) = tried(*launch, "experiment=mine", said)
        assert (result.code, list(job.config.launch.setup)) == (0, ["ls"])
