"""Configurations: defaults, strictness, overrides, populations, and every shipped file."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgkit import optim
from pgkit.config import names, registry
from pgkit.config.device import resolve_device
from pgkit.config.load import load_config, parse_config, read_config, read_table, to_table, to_toml
from pgkit.config.members import check_population, expand_seeds, stack_agent_config
from pgkit.config.overrides import apply_overrides
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, PgkitWarning

MINIMAL = """
steps = 1000
[env]
id = "CartPole-v1"
[agent]
name = "actor-critic"
[optimizer]
name = "adam"
lr = 1e-3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small configuration of actor-critic with Adam."""
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return path


def test_defaults_of_a_minimal_file(file: Path) -> None:
    config = load_config(file)
    assert config.name == "mine"
    assert (config.seed, config.seeds, config.seed_list, config.device) == (0, None, [0], "cpu")
    assert (config.envs_per_member, config.rollout_steps, config.steps_per_log) == (8, 5, 10)
    assert config.policy.hidden == (64, 64)
    assert config.policy.critic_hidden is None
    assert config.agent == {"name": "actor-critic", **config.agent_config.model_dump()}
    assert config.agent_module is registry.agent("actor-critic")


def test_a_config_is_frozen(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(file).seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("seed", "seeds", "expected"),
    [(7, None, [7]), (7, 1, [7]), (7, 3, [7, 8, 9]), (7, [5, 3], [5, 3])],
)
def test_seed_list(file: Path, seed: int, seeds: Any, expected: list[int]) -> None:
    table = to_table(load_config(file)) | {"seed": seed} | ({} if seeds is None else {"seeds": seeds})
    config = parse_config(table)
    assert config.seed_list == expected
    assert [(member.seed, member.seeds) for member in expand_seeds(config)] == [(seed, None) for seed in expected]


def test_episodes_agent_has_no_rollout_steps(file: Path) -> None:
    assert load_config(file, ["agent.name=reinforce"]).rollout_steps is None
    with pytest.raises(PgkitError, match="rollout_steps = 8 has no effect: agent 'reinforce' collects whole episodes"):
        load_config(file, ["agent.name=reinforce", "rollout_steps=8"])


def test_log_interval_is_one_percent_unless_given(file: Path) -> None:
    assert load_config(file, ["steps=500_000"]).steps_per_log == 5000
    assert load_config(file, ["steps=500_000", "log_interval=10"]).steps_per_log == 10
    assert load_config(file, ["steps=20"]).steps_per_log == 1


def test_what_an_override_switches_off_is_left_out(file: Path, tmp_path: Path) -> None:
    file.write_text(MINIMAL.replace("steps", "seed = 7\nevaluation.episodes = 3\npolicy.critic_hidden = [8]\nsteps"))
    config = load_config(file, ["seeds=[4, 2]", "evaluation.points=0", "policy.shared=true"])
    assert (config.seed, config.seed_list) == (0, [4, 2])
    assert (config.evaluation.episodes, config.policy.critic_hidden) == (10, None)
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "again.toml") == config


def test_toml_is_complete_and_loads_again(file: Path, tmp_path: Path) -> None:
    overrides = ["seeds=[3, 1]", "env.kwargs.sutton_barto_reward=true", "policy.critic_hidden=[8]", "agent.gamma=0.9"]
    config = load_config(file, overrides)
    table = tomllib.loads(to_toml(config))
    flags = {"deterministic": False, "greedy": False}
    assert table["evaluation"] == {"points": 20, "episodes": 10, "final_episodes": 100, "envs": 32, **flags}
    assert table["agent"].keys() == {"name", *type(config.agent_config).model_fields}
    copy = tmp_path / "config.toml"
    copy.write_text(to_toml(config))
    assert load_config(copy) == config
    assert to_toml(load_config(copy)) == to_toml(config)


def test_integers_are_numbers_but_nothing_else_is_converted(file: Path) -> None:
    assert load_config(file, ["agent.gamma=1"]).agent["gamma"] == 1.0
    wrong = ['agent.gamma="1"', "agent.gamma=true", "seed=true", "seed=1.5", "evaluation.deterministic=1", "steps=1e30"]
    wrong += ['policy.hidden="64"', "policy.hidden=[64.5]", "policy.log_std=nan", "env.kwargs=5"]
    for override in wrong:
        with pytest.raises(PgkitError, match=f"{override.partition('=')[0]}.* must be "):
            load_config(file, [override])


ALIASES = [
    ("steps=1e5", "steps", 100_000),
    ("total_timesteps=5000", "steps", 5000),
    ("n_steps=16", "rollout_steps", 16),
    ("num_envs=4", "envs_per_member", 4),
    ("--seed=3", "seed", 3),
    ("--num-envs=4", "envs_per_member", 4),
    ("learning_rate=0.5", "optimizer", {"name": "adam", "lr": 0.5}),
    ("optimizer=AdamW", "optimizer", {"name": "adamw"}),
    ("optimizer.name=torch.optim.SGD", "optimizer", {"name": "torch.optim:SGD"}),
    ("env=Pendulum-v1", "env", {"id": "Pendulum-v1"}),
    ("env_id=Pendulum-v1", "env", {"id": "Pendulum-v1"}),
    ("agent=a2c", "agent", {"name": "actor-critic"}),
    ("agent.name=Actor_Critic", "agent", {"name": "actor-critic"}),
    ("ent_coef=0.25", "agent", {"name": "actor-critic", "entropy_coef": 0.25}),
    ("gae_lambda=0.5", "agent", {"name": "actor-critic", "lam": 0.5}),
    ("evaluation.deterministic=True", "evaluation", {"deterministic": True}),
    ("name=nan", "name", "nan"),
    ("name=3", "name", "3"),
]


@pytest.mark.filterwarnings("ignore:optimizer.lr")
@pytest.mark.parametrize(("word", "key", "expected"), ALIASES)
def test_words_of_other_libraries_are_taken(word: str, key: str, expected: Any, file: Path) -> None:
    table = to_table(load_config(file, [word]))
    assert table[key] == (table[key] | expected if isinstance(expected, dict) else expected)
    if not word.startswith(("--", "name")):
        alias, _, text = word.partition("=")
        value = {"True": True}.get(text, float(text) if re.fullmatch(r"[\d.e]+", text) else text)
        assert to_table(load_config(file, {alias: value})) == table


def test_an_option_is_an_override(file: Path) -> None:
    assert load_config(file, ["--seed", "3", "--learning-rate", "0.5", "steps=7"]) == load_config(
        file, ["seed=3", "optimizer.lr=0.5", "steps=7"]
    )


@pytest.mark.parametrize("word", ["none", "None"])
def test_none_in_words_is_none_where_that_is_the_default(word: str, tmp_path: Path) -> None:
    """Lists of defaults show None, for which TOML has no word."""
    keys = ("seeds", "log_interval", "env.max_episode_steps", "policy.critic_hidden", "optimizer.max_grad_norm")
    changes = (*keys, "optimizer.critic.max_layer_norm")
    config = load_config("cartpole-actor-critic", [f"{key}={word}" for key in changes])
    assert (config.seeds, config.log_interval, config.env.max_episode_steps) == (None, None, None)
    for group in optim.describe(config.optimizer).values():
        assert group["max_grad_norm"] is group["max_layer_norm"] is None
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "again.toml") == config


def test_none_of_python_is_kept_in_the_file(tmp_path: Path) -> None:
    """Clipping that is switched off for the critic alone stays off when the run is resumed."""
    config = load_config("cartpole-actor-critic", {"optimizer.critic.max_grad_norm": None})
    (tmp_path / "again.toml").write_text(to_toml(config))
    groups = optim.describe(load_config(tmp_path / "again.toml").optimizer)
    assert (groups["critic"]["max_grad_norm"], groups["main"]["max_grad_norm"]) == (None, 0.5)


def test_files_may_name_environment_agent_and_optimizer_alone(file: Path) -> None:
    file.write_text('steps = 1e3\nenv = "CartPole-v1"\nagent = "A2C"\noptimizer = "SGD"\n')
    config = load_config(file)
    assert (config.steps, config.env.id, config.agent["name"]) == (1000, "CartPole-v1", "actor-critic")
    assert config.optimizer == {"name": "SGD"}


def test_python_tables_raise_the_same_one_line_error() -> None:
    with pytest.raises(PgkitError, match=r"^config: name is missing; steps is missing; env is missing; "):
        parse_config({})


# --- overrides ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 3e-3),
        (".05", 0.05),
        ("-5.", -5.0),
        ("1_000", 1000),
        ("true", True),
        ("True", True),
        ("false", False),
        ("rmsprop", "rmsprop"),
        ("torch.optim:Adam", "torch.optim:Adam"),
        ('"5"', "5"),
        ("[1, 2]", [1, 2]),
        ('{kind = "linear", end = 0.1}', {"kind": "linear", "end": 0.1}),
        ("a=b", "a=b"),
        ("1\nb = 2", "1\nb = 2"),
        ("1\n[b]\nc = 2", "1\n[b]\nc = 2"),
        ("", ""),
    ],
)
def test_override_values(text: str, value: Any) -> None:
    table, notes = apply_overrides({}, [f"key={text}"])
    assert table == {"key": value}
    assert type(table["key"]) is type(value)
    assert notes == []


def test_the_name_of_a_schedule_is_short_for_its_table() -> None:
    given = {"optimizer": {"schedule": {"lr": "linear", "eps": "cosine"}}}
    table, _ = apply_overrides(given, ["optimizer.schedule.lr.end=0.1", "optimizer.schedule.eps.kind=kl"])
    assert table["optimizer"]["schedule"] == {"lr": {"kind": "linear", "end": 0.1}, "eps": {"kind": "kl"}}
    with pytest.raises(PgkitError, match=r"optimizer\.name is not a table"):
        apply_overrides({"optimizer": {"name": "sgd"}}, ["optimizer.name.kind=kl"])


def test_override_keys_nest_quote_and_repeat() -> None:
    given = {"optimizer": {"name": "adam", "lr": 1}}
    table, _ = apply_overrides(
        given, ["optimizer.lr=2", 'optimizer.groups."*.bias".lr=0', "optimizer.lr=3", "env.id=X"]
    )
    assert table == {"optimizer": {"name": "adam", "lr": 3, "groups": {"*.bias": {"lr": 0}}}, "env": {"id": "X"}}
    assert given == {"optimizer": {"name": "adam", "lr": 1}}


@pytest.mark.parametrize("override", ["seed", "=3", "a b=3", ".=1", "", "a\nb=1", "#=1", "[a]=1"])
def test_override_that_is_none(override: str) -> None:
    with pytest.raises(PgkitError, match="is not of the form key=value"):
        apply_overrides({}, [override])


@given(st.text(max_size=30))
def test_any_override_is_applied_or_refused(text: str) -> None:
    try:
        table, notes = apply_overrides({}, [text])
    except PgkitError:
        return
    assert len(table) == 1
    assert notes == []


def test_override_through_a_value_is_refused(file: Path) -> None:
    with pytest.raises(PgkitError, match=r"unknown key 'seed\.x': seed is not a table"):
        load_config(file, ["seed=1", "seed.x=1"])


ADAM = {
    "name": "adam",
    "lr": 3e-3,
    "eps": 1e-5,
    "max_grad_norm": 0.5,
    "schedule": {"lr": "linear", "beta1": "linear"},
    "critic": {"lr": 1e-2},
}


def test_another_optimizer_leaves_the_hyperparameters_of_the_old_one_behind() -> None:
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.name=sgd", "optimizer.lr=0.05"])
    assert table["optimizer"] == {
        "name": "sgd",
        "lr": 0.05,
        "max_grad_norm": 0.5,
        "schedule": {"lr": "linear"},
        "critic": {},
    }
    assert [note.partition(" =")[0] for note in notes] == [
        "optimizer.eps",
        "optimizer.schedule.beta1",
        "optimizer.critic.lr",
    ]
    assert notes[0] == "optimizer.eps = 1e-05 dropped: it was chosen for adam, not for sgd"


def test_the_learning_rate_is_not_carried_over_silently() -> None:
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.name=sgd"])
    assert "lr" not in table["optimizer"]
    assert notes[0] == ("optimizer.lr = 0.003 dropped: it was chosen for adam, not for sgd; optimizer.lr=keep holds it")


def test_keep_holds_what_another_optimizer_would_drop() -> None:
    overrides = ["optimizer.name=amsgrad", "optimizer.lr=keep", "optimizer.schedule.beta1=keep"]
    table, notes = apply_overrides({"optimizer": ADAM}, overrides)
    assert (table["optimizer"]["name"], table["optimizer"]["lr"]) == ("amsgrad", ADAM["lr"])
    assert table["optimizer"]["schedule"] == ADAM["schedule"]
    assert [note.partition(" =")[0] for note in notes] == ["optimizer.eps", "optimizer.critic.lr"]
    table, notes = apply_overrides({"optimizer": ADAM}, {"optimizer.name": "amsgrad", "optimizer": "keep"})
    assert (table["optimizer"], notes) == (ADAM | {"name": "amsgrad"}, [])
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.critic.name=sgd", "optimizer.critic.lr=keep"])
    assert (table["optimizer"], notes) == (ADAM | {"critic": {"name": "sgd", "lr": 1e-2}}, [])


def test_keep_of_what_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(PgkitError, match=r"optimizer\.eps = keep: the configuration has no optimizer\.eps"):
        load_config(file, ["optimizer.name=sgd", "optimizer.eps=keep"])
    with pytest.raises(PgkitError, match="unknown key 'eps'"):
        load_config(file, {"optimizer.name": "sgd", "optimizer": "keep"} | {"optimizer.eps": 1e-5})


def test_what_is_dropped_is_a_warning_in_python(file: Path) -> None:
    with pytest.warns(PgkitWarning, match=r"^optimizer\.lr = 0\.001 dropped: it was chosen for adam, not for sgd"):
        load_config(file, {"optimizer.name": "sgd"})
    file.write_text(MINIMAL.replace('"actor-critic"', '"actor-critic"\nlam = 0.9'))
    with pytest.warns(PgkitWarning, match=r"^agent\.lam = 0\.9 dropped: agent reinforce has no such setting"):
        load_config(file, {"agent.name": "reinforce"})
    assert load_config(file, {"optimizer.name": "sgd", "optimizer.lr": "keep"}).optimizer["lr"] == 1e-3


def test_the_same_optimizer_keeps_everything() -> None:
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.name=adam", "optimizer.lr=1.0"])
    assert table["optimizer"] == ADAM | {"lr": 1.0}
    assert notes == []


def test_a_critic_of_its_own_recipe_is_not_touched() -> None:
    optimizer = ADAM | {"critic": {"name": "rmsprop", "lr": 1e-2}}
    table, _ = apply_overrides({"optimizer": optimizer}, ["optimizer.name=sgd"])
    assert table["optimizer"]["critic"] == {"name": "rmsprop", "lr": 1e-2}


def test_another_optimizer_for_the_critic_only() -> None:
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.critic.name=sgd", "optimizer.critic.lr=.1"])
    assert table["optimizer"] == ADAM | {"critic": {"name": "sgd", "lr": 0.1}}
    assert notes == []
    table, notes = apply_overrides({"optimizer": ADAM}, ["optimizer.critic.name=sgd"])
    assert table["optimizer"] == ADAM | {"critic": {"name": "sgd"}}
    assert len(notes) == 1


def test_another_agent_leaves_behind_what_it_does_not_have(file: Path) -> None:
    text = MINIMAL.replace("steps = 1000", "steps = 1000\nrollout_steps = 8")
    file.write_text(text.replace('"actor-critic"', '"actor-critic"\nlam = 0.9'))
    config, notes = read_config(file, ["agent.name=reinforce"])
    assert config.agent["name"] == "reinforce"
    assert notes == [
        "agent.lam = 0.9 dropped: agent reinforce has no such setting",
        "rollout_steps = 8 dropped: agent reinforce collects whole episodes",
    ]


# --- populations ---


def several(file: Path, *overrides: list[str]) -> list[TrainConfig]:
    return [load_config(file, words) for words in overrides]


def test_agents_real_numbers_become_one_per_member(file: Path) -> None:
    stacked = stack_agent_config(several(file, ["agent.gamma=0.9"], ["agent.gamma=1"], []))
    assert stacked.gamma.dtype == torch.float32
    assert torch.equal(stacked.gamma, torch.tensor([0.9, 1.0, 0.99]))
    alone = stack_agent_config(several(file, ["agent.gamma=0.9"]))
    assert torch.equal(alone.gamma, stacked.gamma[:1])
    assert type(stacked.normalize_advantage) is bool


def test_members_may_differ_in_name_seed_optimizer_and_real_numbers(file: Path) -> None:
    check_population(several(file, ["name=a", "seed=1"], ["optimizer.lr=1.0"], ["agent.gamma=.5"], ["seeds=3"]))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("steps=7", "steps"),
        ("env.id=Acrobot-v1", "env.id"),
        ("env.max_episode_steps=7", "env.max_episode_steps"),
        ("policy.hidden=[8]", "policy.hidden"),
        ("agent.normalize_advantage=true", "agent.normalize_advantage"),
        ("agent.name=reinforce", "agent"),
        ("rollout_steps=7", "rollout_steps"),
    ],
)
def test_members_must_agree_in_the_rest(file: Path, override: str, key: str) -> None:
    with pytest.raises(PgkitError, match=f"must agree in {key}"):
        check_population(several(file, [], [], [override]))


def test_an_empty_population_is_refused() -> None:
    with pytest.raises(PgkitError, match="at least one member"):
        check_population([])


# --- devices ---


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(PgkitError, match="device 'cuda' is not available: no CUDA device found"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(PgkitError, match=r"'cuda:1' is not available: 1 CUDA device\(s\) found"):
        resolve_device("cuda:1")


# --- agents ---


def test_agents_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = (
        "from pydantic import BaseModel\nclass Config(BaseModel):\n    gamma: float = 0.5\ncollects = 'steps'\n"
        "def targets(policy, params, rollout, config): ...\ndef loss(policy, params, batch, config): ...\n"
    )
    (tmp_path / "users_agent.py").write_text(source)
    (tmp_path / "users_broken_agent.py").write_text("collects = 'steps'\n")
    (tmp_path / "users_other_agent.py").write_text(source.replace("'steps'", "'days'"))
    assert registry.agent("users_agent").collects == "steps"
    with pytest.raises(PgkitError, match="it does not define Config, targets, loss"):
        registry.agent("users_broken_agent")
    with pytest.raises(PgkitError, match=r'users_other_agent\.collects must be "episodes" or "steps", got '):
        registry.agent("users_other_agent")
    for name in ("actor_critic", "no_such_package.agent", "not a name", "", "json.nothing"):
        with pytest.raises(PgkitError, match="unknown agent"):
            registry.agent(name)


# --- shipped configurations ---

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("*.toml"))
SHIPPED = [name for name in FILES if not names.is_comparison(read_table(name))]


def test_every_config_of_the_repository_is_shipped() -> None:
    assert len(SHIPPED) >= 4
    assert sorted(names.shipped_configs()) == FILES


def test_a_comparison_is_not_trained() -> None:
    with pytest.raises(PgkitError, match="compare-cartpole is a comparison: pgkit compare compare-cartpole"):
        load_config("compare-cartpole")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_loads(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert parse_config(tomllib.loads(to_toml(config))) == config


def test_a_path_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("cartpole-reinforce").steps != 77
    (tmp_path / "cartpole-reinforce").write_text(MINIMAL.replace("1000", "77"))
    assert load_config("cartpole-reinforce").steps == 77
