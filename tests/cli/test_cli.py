"""The command line, from words to exit codes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.command_line import pgkit
from helpers.parameters import few_by_default

from pgkit.config import listing, names
from pgkit.config.load import read_table

TINY = "envs_per_member=2 steps=400 policy.hidden=[8] evaluation.points=1 evaluation.episodes=2"
TINY += " evaluation.final_episodes=3"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- help ---


@pytest.mark.parametrize("command", ["", "train ", "resume ", "evaluate ", "list "])
def test_help(command: str) -> None:
    short, long = pgkit(command + "-h"), pgkit(command + "--help")
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    assert "Usage: pgkit" in short.stdout


def test_no_words_is_help() -> None:
    assert "Commands" in "".join(pgkit("")[1:])


def test_version() -> None:
    result = pgkit("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"pgkit \d+\.\d+\.\d+\S*\n", result.stdout)


def test_help_does_not_load_torch() -> None:
    heavy = {"torch", "numpy", "gymnasium", "pydantic", "rich.table"}
    code = f"import sys, pgkit.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- list ---


@pytest.mark.parametrize(
    ("topic", "fragments"),
    [
        ("agents", ["reinforce", "episodes", "actor-critic", "steps"]),
        ("optimizers", ["sgd", "p = p - lr g", "adam", "beta2=0.999", "arXiv 1412.6980", "+ cautious", "2405.16642"]),
        ("configs", ["cartpole-reinforce", "lunarlander-actor-critic", "LunarLander-v3"]),
        ("envs", ["CartPole-v1", "LunarLander-v3", "Acrobot-v1"]),
    ],
)
def test_list(topic: str, fragments: list[str]) -> None:
    result = pgkit(f"list {topic}")
    assert result.exit_code == 0
    assert [fragment for fragment in fragments if fragment not in result.stdout] == []
    assert result.stdout.count("\n") >= len(listing.overview(topic))


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (
            "agents reinforce",
            ["Collects episodes", 'baseline = "value"', '"leave_one_out"', "gamma = 0.99", "number >= 0 <= 1"],
        ),
        ("optimizers adam", ["Source: Kingma and Ba 2015", "eps=1e-08", "max_grad_norm=None"]),
        ("optimizers kl_limit", ["u F u", "Source: Schulman et al. 2015", "kl_limit=None, kl_backtracking=True"]),
        ("configs cartpole-reinforce", ['id = "CartPole-v1"']),
        ("envs CartPole-v1", ["4 numbers", "Discrete(2)", "time limit: 500"]),
    ],
)
def test_list_one(words: str, fragments: list[str]) -> None:
    result = pgkit(f"list {words}")
    assert result.exit_code == 0
    assert [fragment for fragment in fragments if fragment not in result.stdout] == []


def test_a_listed_config_is_toml() -> None:
    assert tomllib.loads(pgkit("list configs cartpole-reinforce").stdout)["agent"] == {"name": "reinforce"}


# --- train and evaluate ---


def test_train_then_evaluate(place: Path) -> None:
    trained = pgkit(f"train cartpole-actor-critic {TINY} name=tiny seeds=[4,7] optimizer.name=sgd optimizer.lr=0.01")
    assert trained.exit_code == 0, trained.stderr
    assert "CartPole-v1 (pgkit) x 2, 400 steps per seed" in trained.stdout
    assert "sgd (lr=0.01" in trained.stdout
    assert re.search(r"seeds +4, 7", trained.stdout)
    assert "Mean returns over seeds" in trained.stdout
    assert "written to runs/tiny" in trained.stdout
    assert tomllib.loads((place / "runs/tiny/config.toml").read_text())["optimizer"]["name"] == "sgd"

    by_name = pgkit("evaluate tiny --episodes 3 --seed 5")
    assert by_name.exit_code == 0, by_name.stderr
    assert "3 episodes per seed, sampled actions" in by_name.stdout
    by_path = pgkit(f"evaluate {place}/runs/tiny --episodes 3 --seed 5")
    assert by_path.stdout.replace(f"{place}/", "") == by_name.stdout
    assert "most likely actions" in pgkit("evaluate tiny --episodes 3 --deterministic").stdout


@pytest.mark.parametrize("quiet", ["", "--quiet"])
def test_what_the_command_line_drops_is_a_warning_on_standard_error(quiet: str) -> None:
    result = pgkit(f"train cartpole-actor-critic {TINY} optimizer.name=sgd {quiet}".strip())
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[:3] == [
        "warning: optimizer.lr = 0.003 dropped: it was chosen for adam, not for sgd; optimizer.lr=keep holds it",
        "warning: optimizer.beta1 = 0.5 dropped: it was chosen for adam, not for sgd",
        "warning: optimizer.critic.lr = 0.01 dropped: it was chosen for adam, not for sgd; "
        "optimizer.critic.lr=keep holds it",
    ]
    assert "dropped" not in result.stdout


OWN_OPTIMIZERS = """
from pgkit import optim
from pgkit.optim.transforms import clip_by_value, scale_by_rate

def clipped_sgd(lr=1e-3, limit=1.0):
    "p = p - lr clip(g, -limit, limit)."
    return optim.chain(clip_by_value(limit), scale_by_rate(lr))

optim.register("careful_NUMBER", clipped_sgd)
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "train cartpole-actor-critic -q TINY optimizer.name=MODULE:careful_1 optimizer.limit=0.5"),
        (2, "train cartpole-actor-critic -q TINY optimizer.name=MODULE:clipped_sgd"),
        (3, "train cartpole-actor-critic -q TINY optimizer.critic.name=MODULE:careful_3 optimizer.critic.limit=0.5"),
        (4, "compare compare-cartpole steps=200 --dry-run optimizers=['MODULE:careful_4']"),
        (5, "list optimizers MODULE:careful_5"),
    ],
)
def test_an_optimizer_of_ones_own_module_is_found_by_its_name(number: int, words: str, place: Path) -> None:
    module = f"ones_own_optimizers_{number}"
    (place / f"{module}.py").write_text(OWN_OPTIMIZERS.replace("NUMBER", str(number)))
    result = pgkit(words.replace("TINY", TINY).replace("MODULE", module))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()


def test_what_a_comparison_drops_is_a_warning_on_standard_error() -> None:
    result = pgkit("compare compare-cartpole steps=200 optimizers=['adam'] --dry-run optimizer.critic.name=sgd")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == (
        "warning: optimizer.critic.lr = 0.01 dropped: it was chosen for adam, not for sgd; "
        "optimizer.critic.lr=keep holds it\n"
    )


def test_quiet_prints_the_result_only() -> None:
    result = pgkit(f"train cartpole-reinforce {TINY} --quiet --out elsewhere/run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.lstrip().startswith("Final evaluation, 3 episodes per seed")
    assert result.stderr == ""
    assert Path("elsewhere/run/config.toml").is_file()
    assert not Path("runs").exists()


def test_a_run_is_replaced_only_when_asked() -> None:
    command = f"train cartpole-reinforce {TINY} name=again --quiet"
    assert pgkit(command).exit_code == 0
    config = Path("runs/again/config.toml")
    Path("runs/again/notes.txt").write_text("of the first run")
    first = config.read_text()
    assert pgkit(f"{command} seed=9").exit_code == 2
    assert config.read_text() == first
    assert pgkit(f"{command} seed=9 --overwrite").exit_code == 0
    assert tomllib.loads(config.read_text())["seed"] == 9
    assert not Path("runs/again/notes.txt").exists()


def test_divergence_is_exit_code_1() -> None:
    words = f"{TINY} optimizer.name=sgd optimizer.lr=1e38 optimizer.max_grad_norm=1e38 --quiet"
    one = pgkit(f"train cartpole-actor-critic {words} name=one")
    assert one.exit_code == 1
    assert one.stderr.endswith(
        "the run failed: its numbers are not finite; the last good checkpoint is in runs/one/checkpoints\n"
    )
    assert json.loads(Path("runs/one/result.json").read_text())["members"][0]["failed"] is True
    assert list(Path("runs/one/checkpoints").iterdir()) != []


TRAINED = sorted(name for name in names.shipped_configs() if not names.is_comparison(read_table(name)))


@pytest.mark.parametrize("name", few_by_default(TRAINED, "cartpole-reinforce", "lunarlander-ppo"))
def test_every_shipped_config_runs(name: str) -> None:
    words = "steps=200 envs_per_member=2 evaluation.points=1 evaluation.episodes=1 evaluation.final_episodes=1"
    result = pgkit(f"train {name} {words} --quiet")
    assert result.exit_code == 0, result.stderr
    assert Path("runs", name, "result.json").is_file()


def test_what_an_optimizer_does_not_state_is_not_printed(place: Path) -> None:
    (place / "silent_optimizers.py").write_text(
        "from pgkit.optim import chain\nfrom pgkit.optim.transforms import scale_by_rate\n"
        "def plain(lr=1e-3):\n    return chain(scale_by_rate(lr))\n"
    )
    result = pgkit("list optimizers silent_optimizers:plain")
    assert result.exit_code == 0, result.stderr
    assert "Source:" not in result.stdout
    assert result.stdout.startswith("Hyperparameters (optimizer.*), with defaults:\n  lr=0.001\n")
