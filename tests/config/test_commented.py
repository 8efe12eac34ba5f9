"""``pgkit config``: the resolved configuration with a comment for each key is a file that trains the same."""

import tomllib
from pathlib import Path

import pytest
from helpers.command_line import pgkit
from helpers.parameters import few_by_default

import pgkit as toolkit
from pgkit.config.commented import to_commented_toml
from pgkit.config.load import load_config, read_table
from pgkit.config.names import is_comparison, shipped_configs
from pgkit.config.schema import TrainConfig

TRAINED = [name for name in shipped_configs() if not is_comparison(read_table(name))]

OVERRIDES = {
    "nothing": [],
    "tables": ["env.kwargs.sutton_barto_reward=true", "diagnose.every=1e4", "env.wrappers=[{name='ClipReward'}]"],
    "optimizers": ["optimizer=rmsprop", 'optimizer.groups."*.bias".lr=1e-4', "optimizer.critic.lr=0.1"],
    "schedules": ["optimizer.schedule.lr={kind='linear',end=1e-5}", "optimizer.max_grad_norm=none"],
    "lists": ["seeds=[3,1,4]", "policy.hidden=[8,9]", "callbacks=['stop-without-improvement']"],
    "another run": ["init=runs/older", "init.member=seed-3"],
    "text": ["name=a = b, c", "agent.gamma=1"],
    "small numbers": ["agent.gamma=0.1", "optimizer.lr=1e-30", "target_kl=1e-7", "epochs=2"],
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reloaded(config: TrainConfig) -> TrainConfig:
    """What is loaded from the printed text."""
    Path("printed.toml").write_text(to_commented_toml(config), encoding="utf-8")
    return load_config("printed.toml")


@pytest.mark.parametrize("name", few_by_default(TRAINED, "cartpole-reinforce", "pendulum-ppo"))
def test_every_shipped_configuration_comes_back(name: str) -> None:
    assert reloaded(load_config(name)) == load_config(name)


@pytest.mark.parametrize("case", OVERRIDES)
@pytest.mark.filterwarnings("ignore:.*dropped:pgkit.errors.PgkitWarning")
def test_overrides_come_back(case: str) -> None:
    config = load_config("cartpole-actor-critic", OVERRIDES[case])
    assert reloaded(config) == config


def test_every_key_has_a_comment_and_none_is_left_out() -> None:
    text = to_commented_toml(load_config("cartpole-ppo"))
    lines = text.splitlines()
    keys = [index for index, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(keys) > 30
    bare = [lines[index] for index in keys if not lines[index - 1].startswith("#")]
    assert bare == ['name = "ppo"', 'name = "adam"']  # the comment is above the table
    missing = [
        name
        for name in TrainConfig.model_fields
        if f"\n{name} = " not in f"\n{text}" and f"# {name}, not set" not in text and f"[{name}]" not in text
    ]
    assert missing == []
    assert max(map(len, lines)) <= 100


def test_what_is_printed_trains_the_same() -> None:
    words = [
        "steps=400",
        "envs_per_member=2",
        "policy.hidden=[8]",
        "evaluation.points=0",
        "evaluation.final_episodes=3",
    ]
    printed = pgkit(f"config cartpole-actor-critic {' '.join(words)}")
    assert (printed.exit_code, printed.stderr) == (0, "")
    Path("mine.toml").write_text(printed.stdout, encoding="utf-8")
    results = [
        toolkit.train(config) for config in (load_config("cartpole-actor-critic", words), load_config("mine.toml"))
    ]
    assert results[0].table == results[1].table
    assert all((one == other).all() for one, other in zip(*(result.params.values() for result in results), strict=True))


def test_what_is_dropped_is_a_warning_and_not_in_the_file() -> None:
    printed = pgkit("config cartpole-actor-critic optimizer=sgd")
    assert "optimizer.lr = 0.003 dropped" in printed.stderr
    assert tomllib.loads(printed.stdout)["optimizer"]["name"] == "sgd"


def test_a_comparison_is_named_as_one() -> None:
    assert (
        "compare-cartpole is a comparison: pgkit compare compare-cartpole --dry-run"
        in pgkit("config compare-cartpole").stderr
    )
