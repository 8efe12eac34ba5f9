"""Plans: what is declared, what is resolved, and every mistake in one line before anything runs."""

from pathlib import Path

import pytest
import torch
from helpers.small_comparison import TOML, write_toml
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare.execution import batches
from pgkit.compare.plan.plan import Plan, Run, make_plan, read_plan, stored_plan
from pgkit.compare.plan.schema import TIERS, half_decades
from pgkit.compare.selection.stages import extended
from pgkit.config import names
from pgkit.errors import PgkitError
from pgkit.optim import from_config

SHIPPED = [name for name in names.shipped_configs() if name.startswith("compare-")]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_toml(tmp_path)


def test_comparisons_are_shipped() -> None:
    assert len(SHIPPED) >= 3


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_comparison_resolves(name: str) -> None:
    plan = read_plan(name)
    assert plan.config.name == name
    assert len(plan.cases) == len(plan.config.environments) * len(plan.config.agents)
    for case in plan.cases:
        for arm in plan.arms:
            config = plan.train_config(Run("tuning", case.environment, case.agent, arm, 0.01, 5))
            assert (config.env.id, config.agent["name"], config.seed) == (case.environment, case.agent, 5)
            assert (config.optimizer["name"], config.optimizer["lr"]) == (plan.arms[arm]["name"], 0.01)
            assert config.evaluation.points == 50


def test_tiers_are_those_of_the_protocol() -> None:
    sizes = {name: (len(t.rates), t.tuning, t.evaluation, t.neighbours) for name, t in TIERS.items()}
    assert sizes == {"quick": (7, 3, 10, 0), "standard": (11, 5, 20, 5), "publication": (11, 10, 50, 10)}
    assert half_decades(-10, 0)[:3] == (1e-5, 3.16e-5, 1e-4)
    assert half_decades(-10, 0)[-1] == 1.0


def test_extensions_go_on_in_half_decades() -> None:
    assert extended((1e-2, 3.16e-2, 1e-1), 2, 2) == (1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 0.316, 1.0)
    assert extended((0.1,), 2, 2) == (0.1,)


def test_overrides_of_training_go_before_the_file(small: Path) -> None:
    plan = read_plan(small, ["steps=123", "rollout_steps=3", "env.max_episode_steps=9", 'agents=["actor-critic"]'])
    (case,) = plan.cases
    assert (case.config.steps, case.config.rollout_steps, case.config.env.max_episode_steps) == (123, 3, 9)


def test_the_critic_inherits_nothing_from_an_arm(small: Path) -> None:
    plan = read_plan(small)
    config = plan.train_config(Run("tuning", "CartPole-v1", "reinforce", "fast adam", 0.1, 0))
    assert config.optimizer["beta2"] == 0.9
    assert (config.optimizer["critic"]["beta2"], config.optimizer["critic"]["lr"]) == (0.999, 0.01)


def test_settings_that_say_what_is_decided_are_no_mistake(small: Path) -> None:
    decided = ["environments.CartPole-v1.train.env.id=CartPole-v1", "evaluation.deterministic=false"]
    assert read_plan(small, decided).hash == read_plan(small).hash


def test_an_older_plan_with_settings_without_effect_can_be_read(small: Path) -> None:
    plan = read_plan(small)
    table = {**plan.declared["table"], "env": {"id": "Acrobot-v1"}, "keep_checkpoints": 1}
    older = make_plan(table)
    assert stored_plan(older.as_data(), "plan.json").hash == older.hash


def test_settings_of_an_arm_are_kept(small: Path) -> None:
    plan = read_plan(small, ['optimizers=[{name="adam", max_grad_norm=0.1}, {name="torch.optim:RMSprop"}]'])
    assert list(plan.arms) == ["adam", "RMSprop"]
    assert plan.arms["adam"]["max_grad_norm"] == 0.1


def test_the_hash_is_that_of_what_decides_numbers(small: Path) -> None:
    plan = read_plan(small)
    assert read_plan(small).hash == plan.hash
    assert read_plan(small, ["name=other", 'question="Another?"']).hash == plan.hash
    changes = ("steps=601", "rope=0.1", "tuning_seeds=3", "learning_rates=[0.1]", "optimizer.max_grad_norm=1.0")
    assert len({plan.hash, *(read_plan(small, [change]).hash for change in changes)}) == len(changes) + 1


def test_a_stored_plan_is_the_plan(small: Path) -> None:
    plan: Plan = read_plan(small, ["steps=700"])
    again = stored_plan(plan.as_data(), "plan.json")
    assert again.as_data() == plan.as_data()
    with pytest.raises(PgkitError, match="made by another version of pgkit"):
        stored_plan({**plan.as_data(), "hash": "0"}, "plan.json")
    with pytest.raises(PgkitError, match="has format 99; this pgkit reads format 1 only"):
        stored_plan({**plan.as_data(), "format": 99}, "plan.json")


MISTAKES = {
    "unknown key": ("stepz=1", "unknown key 'stepz', did you mean 'steps'?"),
    "seed": ("seed=1", "unknown key 'seed'"),
    "steps": ("steps=0", "steps must be greater than or equal to 1, got 0"),
    "no optimizer": ("optimizers=[]", "optimizers must be a list with at least one entry"),
    "unknown optimizer": ('optimizers=["adm"]', "unknown optimizer 'adm' (did you mean 'adam'?)"),
    "twice": ('optimizers=["adam","adam"]', "'adam' comes twice"),
    "unknown hyperparameter": ('optimizers=[{name="adam",beta3=1.0}]', "unknown key 'beta3'"),
    "lr of an arm": ('optimizers=[{name="adam",lr=1.0}]', "use learning_rates"),
    "closure": ('optimizers=["torch.optim:LBFGS"]', "needs a closure"),
    "empty grid": ("learning_rates=[]", "learning_rates must be at least one number > 0, ascending"),
    "grid of zero": ("learning_rates=[0.0]", "ascending, got [0.0]"),
    "descending grid": ("learning_rates=[1e-1,1e-2]", "ascending, got [0.1, 0.01]"),
    "overlap": ("tuning_seeds=[70,1]", "tuning_seeds and evaluation_seeds must not overlap, both have [70]"),
    "no seeds": ("tuning_seeds=0", "tuning_seeds must be a count from 1 to 1,000,000"),
    "tier": ("tier=slow", "tier must be 'quick', 'standard' or 'publication'"),
    "lr": ("optimizer.lr=1.0", "optimizer.lr is what a comparison varies"),
    "agent": ('agents=["x"]', "unknown agent 'x'"),
    "environment": ("environments.X.threshold=3", "environments.X.reference_return is missing"),
    "key of an environment": (
        "environments.CartPole-v1.treshold=3",
        "unknown key 'environments.CartPole-v1.treshold', did you mean 'environments.CartPole-v1.threshold'?",
    ),
    "unknown environment": (
        "environments.X={reference_return=1,threshold=1}",
        "unknown environment 'X'",
    ),
    "device": ("device=cuda:7", "is not available"),
    "critic of npg": ('optimizers=["npg"] optimizer={}', "npg is for the policy"),
    # what no run would obey
    "environment of the runs": ("env.id=Acrobot-v1", 'env.id = "Acrobot-v1" has no effect', "environments.<id>"),
    "agent of the runs": ("agent.name=reinforce", 'agent.name = "reinforce" has no effect', "list agents"),
    "environment of an environment": (
        "environments.CartPole-v1.train.env.id=Acrobot-v1",
        'environments.CartPole-v1.train.env.id = "Acrobot-v1" has no effect',
    ),
    "seed of an environment": ("environments.CartPole-v1.train.seed=3", "train.seed = 3 has no effect", "tuning_seeds"),
    "optimizer of an agent": (
        "environments.CartPole-v1.agents.reinforce.optimizer.lr=0.1",
        "environments.CartPole-v1.agents.reinforce.optimizer.lr = 0.1 has no effect",
        "use optimizers",
    ),
    "episodes of no evaluation": (
        "evaluation={points=0,greedy=true}",
        "evaluation.greedy = true has no effect: evaluation.points = 0",
    ),
    "value loss of no critic": (
        "environments.CartPole-v1.agents.reinforce.agent={baseline='mean',value_coef=1.0}",
        "environments.CartPole-v1.agents.reinforce.agent.value_coef = 1.0 has no effect: agent.baseline",
    ),
    "timeout of no process": ("env.timeout=5", "env.timeout = 5 has no effect", "async"),
    "logger": ("logger=wandb", 'logger = "wandb" has no effect', "not logged"),
    "log interval": ("log_interval=100", "log_interval = 100 has no effect", "not logged"),
    "checkpoints": ("checkpoint_points=3", "checkpoint_points = 3 has no effect", "no checkpoints"),
    "deterministic scores": (
        "evaluation.deterministic=true",
        "deterministic = true has no effect",
        "greedy",
    ),
    "agent that does not take part": (
        'agents=["reinforce"] environments.CartPole-v1.agents.actor-critic.rollout_steps=4',
        "environments.CartPole-v1.agents.actor-critic.rollout_steps = 4 has no effect",
        'agents = ["reinforce"]',
    ),
    "agent that is none": (
        "environments.CartPole-v1.agents.actor-critc.rollout_steps=4",
        "unknown agent 'actor-critc', did you mean 'actor-critic'?",
    ),
    "overruled": (
        'agents=["actor-critic"] environments.CartPole-v1.train.rollout_steps=4',
        "environments.CartPole-v1.train.rollout_steps = 4 has no effect: other settings",
    ),
    "hyperparameter around every optimizer": (
        'optimizers=["adam"] optimizer.beta1=0.5',
        "optimizer.beta1 has no effect",
        'optimizers=[{name="...", beta1=...}]',
    ),
    "clipping that every optimizer states": (
        'optimizers=[{name="adam",max_grad_norm=1.0}] optimizer={max_grad_norm=2.0}',
        "optimizer.max_grad_norm has no effect",
    ),
    "grid under ranges": (
        'track="all\ttuned" optimizers=["sgd"] spaces.sgd.lr={low=0.1,high=1.0} learning_rates=[0.1,0.2]',
        "learning_rates has no effect",
    ),
    "ray address": ("--ray-address x", "--ray-address is for --executor ray"),
}


@pytest.mark.parametrize("dry", ["", "--dry-run"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_writes_nothing(
    mistake: str, dry: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, *fragments = MISTAKES[mistake]
    monkeypatch.chdir(small.parent)
    arguments = [word.replace("\t", " ") for word in words.split(" ")]
    result = CliRunner().invoke(app, ["compare", "small.toml", *arguments, *dry.split()])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert [fragment for fragment in fragments if fragment not in result.stderr] == [], result.stderr
    assert [path.name for path in small.parent.iterdir()] == ["small.toml"]


def test_three_mistakes_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = TOML.replace("steps = 600", "stepz = 600").replace('"standard"', '"slow"').replace("beta2", "beta3")
    (tmp_path / "small.toml").write_text(text)
    result = CliRunner().invoke(app, ["compare", "small.toml"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    for fragment in ("unknown key 'stepz', did you mean 'steps'?", "tier must be 'quick'", "unknown key 'beta3'"):
        assert fragment in result.stderr


EVERYWHERE = {
    'tier = "standard"': ('tier = "slow"', "tier must be 'quick'"),
    "steps = 600": ("steps = 0", "steps must be greater than or equal to 1, got 0"),
    "hidden = [8]": ("hiden = [8]", "unknown key 'policy.hiden', did you mean 'policy.hidden'?"),
    '"reinforce"]': ('"reinforc"]', "CartPole-v1, reinforc: "),
    '"sgd"': ('{ name = "momentum", momentum = 3 }', "optimizers, 'momentum': optimizer (main): momentum is 3"),
    "beta2 = 0.9": ("beta2 = 1.5", "optimizers, 'fast adam': optimizer (main): beta2 is 1.5"),
    "lr = 1e-2": ("lr = -1", "optimizer (critic): lr is -1"),
}
"""What stands in the file, what in its place is a mistake, and what is said of it: keys of every layer."""


@pytest.mark.parametrize("both", [list(EVERYWHERE)[:6], ['tier = "standard"', "steps = 600", "lr = 1e-2"]])
def test_mistakes_of_every_layer_are_told_at_once(tmp_path: Path, both: list[str]) -> None:
    text = TOML
    for stands in both:
        assert stands in text
        text = text.replace(stands, EVERYWHERE[stands][0], 1)
    with pytest.raises(PgkitError) as caught:
        read_plan(write_toml(tmp_path, text))
    assert [EVERYWHERE[stands][1] for stands in both if EVERYWHERE[stands][1] not in str(caught.value)] == []


def test_a_mistake_of_every_case_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(PgkitError) as caught:
        read_plan(write_toml(tmp_path, TOML.replace("steps = 600", "steps = 0")))
    assert str(caught.value).count("steps must be") == 1
    assert "log_interval" not in str(caught.value)


def test_a_mistake_of_one_arm_names_case_arm_rate_and_seed(small: Path) -> None:
    plan = read_plan(small, ['optimizers=["sgd", "npg"]', "optimizer={}"])
    with pytest.raises(
        PgkitError, match=r"^CartPole-v1, actor-critic, npg at lr 0\.001, seed 0: .*npg is for the policy"
    ):
        batches.check_arms(plan)


def test_a_failed_batch_names_arms_rates_and_seeds() -> None:
    runs = [Run("tuning", "CartPole-v1", "reinforce", arm, lr, seed) for arm, lr, seed in FAILED]
    assert batches.name_batch(runs) == (
        "3 runs of CartPole-v1, reinforce (tuning: sgd at lr 0.01, 0.1; adam at lr 0.1; seeds 3, 4)"
    )


FAILED = [("sgd", 0.01, 3), ("sgd", 0.1, 4), ("adam", 0.1, 3)]


def test_what_is_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text(TOML.replace("[optimizer]", "[optimizer"))
    (tmp_path / "other").mkdir()
    for words, fragment in (
        ("compare cartpole-reinforce", "is not a comparison (it has no table 'environments')"),
        ("compare broken.toml", "is not valid TOML"),
        ("compare no-such-thing", "unknown config 'no-such-thing'"),
        ("report other", "other holds no comparison (no plan.json)"),
        ("report nowhere", "nowhere holds no comparison (no plan.json)"),
    ):
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 2
        assert fragment in result.stderr
        assert result.stderr.count("\n") == 1


def test_where_there_is_one_size_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs make one population for each worker; measuring would take longer than they do."""
    plan = read_plan(write_toml(tmp_path))
    runs = [Run("tuning", "CartPole-v1", "actor-critic", "sgd", 0.1, seed) for seed in range(40)]
    assert batches.choose_size(plan, runs[:12], workers=2) == 6
    assert batches.choose_size(plan, runs[:40], workers=4) == 10
    speeds = {16: 5e4, 20: 1e5}
    monkeypatch.setattr(batches, "_speed", lambda configs: speeds.pop(len(configs)))
    assert batches.choose_size(plan, runs, workers=2) == 20
    assert not speeds


@pytest.mark.parametrize(("update_seconds", "tried"), [(1e-3, [16, 32, 64, 128]), (0.2, [16, 32, 64])])
def test_larger_populations_are_not_tried_where_updates_are_long(
    update_seconds: float, tried: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates of 16 members take so long, and those of more members in proportion."""
    plan = read_plan(write_toml(tmp_path))
    runs = [Run("tuning", "CartPole-v1", "actor-critic", "sgd", 0.1, seed) for seed in range(256)]
    sizes: list[int] = []
    steps_per_update = 16 * 2 * 8  # members, environments, rollout_steps
    monkeypatch.setattr(
        batches, "_speed", lambda configs: sizes.append(len(configs)) or steps_per_update / update_seconds
    )
    assert batches.choose_size(plan, runs, workers=2) == 16
    assert sizes == tried


def test_clipping_is_held_equal_for_an_arm_that_clips_by_itself(small: Path) -> None:
    """The class clips as it always does, and pgkit's clipping is around it as around every other arm."""
    plan = read_plan(small, ["optimizer.max_grad_norm=0.5", 'optimizers=["sgd", "helpers.odd_optimizers:Clips"]'])
    assert plan.arms["Clips"]["Clips"] == {"max_grad_norm": 2.0, "centralize": True}
    for arm in plan.arms:
        table = plan.train_config(Run("tuning", "CartPole-v1", "reinforce", arm, 1.0, 0)).optimizer
        optimizer = from_config([{key: value for key, value in table.items() if key not in ("critic", "schedule")}])
        params = {"w": torch.zeros(1, 2)}
        updates, _ = optimizer.update({"w": torch.tensor([[6.0, 8.0]])}, optimizer.init(params), params)
        torch.testing.assert_close(updates["w"].norm(), torch.tensor(0.5))
