"""Search spaces: what they say, and the one line for each mistake."""

import sys
from pathlib import Path

import pytest
from helpers.command_line import pgkit
from helpers.small_search import write_toml

from pgkit.errors import PgkitError
from pgkit.tune.plan import Plan, make_plan
from pgkit.tune.space import Choice, Range, parse_space


def plan_of(*space: str, config: str = "cartpole-actor-critic", overrides: tuple[str, ...] = ()) -> Plan:
    return make_plan(config, overrides, space, tuning_seeds=2, report_seeds=3, stretches=4)


def test_ranges_and_choices() -> None:
    space = parse_space(
        ["lr=1e-4:1e-1:log", "rollout_steps=8:256:log:int", "agent=a2c,ppo", "policy.hidden=[8],[64, 64]"]
    )
    assert space == {
        "optimizer.lr": Range(1e-4, 1e-1, log=True),
        "rollout_steps": Range(8, 256, log=True, whole=True),
        "agent.name": Choice(("actor-critic", "ppo")),
        "policy.hidden": Choice(([8], [64, 64])),
    }


def test_a_class_of_torch_is_a_choice_and_no_range() -> None:
    space = parse_space(["optimizer.name=torch.optim:Adafactor,adam"])
    assert space == {"optimizer.name": Choice(("torch.optim:Adafactor", "adam"))}


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('"optimizer.lr" = "1e-4:1e-1:log"\n[policy]\nhidden = [[8], [64, 64]]\n', encoding="utf-8")
    assert parse_space([str(path)]) == parse_space(["optimizer.lr=1e-4:1e-1:log", "policy.hidden=[8],[64, 64]"])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("optimizer.lr", "is not of the form KEY=low:high"),
        ("optimizer.lr=1e-1:1e-4:log", "the range is empty: low must be below high, got 1e-1 and 1e-4"),
        ("optimizer.lr=1e-3:1e-3", "the range is empty"),
        ("optimizer.lr=0:1:log", "a log range must begin above 0, got 0"),
        ("optimizer.lr=0:1:logarithmic", "unknown word 'logarithmic' after a range (allowed: log, int)"),
        ("rollout_steps=8.5:16:int", "must be whole numbers, got 8.5 and 16"),
        ("optimizer.lr=1e-3", "one value cannot vary"),
        ("optimizer.name=adam,adam", "one value cannot vary"),
        ("steps=1e4:1e5", "steps cannot vary: all trials have the same budget"),
        ("total_timesteps=1e4:1e5", "steps cannot vary"),
        ("seed=0:9:int", "seed cannot vary: every trial trains on the same seeds (--tuning-seeds)"),
        ("env=CartPole-v1,Acrobot-v1", "env.id cannot vary: it is part of the task"),
        ("evaluation.episodes=1,10", "evaluation.episodes cannot vary: it is what trials are measured with"),
        ("missing.toml", "missing.toml cannot be read: No such file"),
    ],
)
def test_mistakes_of_form(space: str, message: str) -> None:
    with pytest.raises(PgkitError) as caught:
        parse_space([space])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("optimizer.lrr=1e-4:1e-1:log", "did you mean 'lr'"),
        ("rollout_stps=8,16", "unknown key 'rollout_stps', did you mean 'rollout_steps'?"),
        ("rollout_steps=8:64", "rollout_steps must be a whole number, got 29.390"),
        ("agent.gamma=0.9:1.1", "--space agent.gamma: cartpole-actor-critic: agent.gamma must be"),
        ("optimizer.name=adam,adamm", "unknown optimizer 'adamm' (did you mean 'adam'?)"),
        ("policy.activation=tanh,sin", "policy.activation must be"),
    ],
)
def test_mistakes_that_the_configuration_knows(space: str, message: str) -> None:
    with pytest.raises(PgkitError) as caught:
        plan_of(space)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_real_range_of_a_whole_number_names_the_remedy() -> None:
    with pytest.raises(PgkitError, match="rollout_steps=low:high:int"):
        plan_of("rollout_steps=8:64")


def test_a_value_that_needs_another_one_is_no_mistake() -> None:
    with pytest.raises(PgkitError, match="momentum"):
        plan_of("optimizer.momentum=0.5,0.9")
    plan = plan_of("optimizer.momentum=0.5,0.9", "optimizer.name=adam,momentum")
    assert plan.config({"optimizer.name": "momentum", "optimizer.momentum": 0.9}).optimizer["momentum"] == 0.9


def test_the_configuration_as_it_stands() -> None:
    space = (
        "optimizer.lr=1e-4:1e-1:log",
        "optimizer.eps=1e-10:1e-3:log",
        "policy.hidden=[8],[64, 64]",
        "rollout_steps=8,32",
    )
    stands = plan_of(*space).as_it_stands()
    assert stands == {"optimizer.lr": 3e-3, "optimizer.eps": 1e-8, "policy.hidden": "[64, 64]", "rollout_steps": 32}
    assert plan_of(*space).config(stands).policy.hidden == (64, 64)
    assert plan_of("optimizer.lr=1e-5:1e-4").as_it_stands() is None


def test_a_trial_is_what_the_same_overrides_train() -> None:
    plan = plan_of("optimizer.name=adam,rmsprop", overrides=("steps=1000",))
    config = plan.config({"optimizer.name": "rmsprop"})
    assert "beta1" not in config.optimizer  # it was chosen for adam
    assert (config.steps, config.optimizer["name"]) == (1000, "rmsprop")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nothing varies: --space KEY=low:high"),
        ("--space optimizer.lr=1:0", "the range is empty"),
        ("--space optimizer.lr=0.1,0.2 seeds=4", "--tuning-seeds for trials, --report-seeds for the report"),
        ("--space optimizer.lr=0.1,0.2 evaluation.points=0", "evaluation.points = 0"),
        ("--space optimizer.lr=0.1,0.2 env.id=CartPol-v1", "CartPol"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    write_toml(tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = pgkit(f"tune small.toml {words}")
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "tuning").exists()


def test_without_optuna_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = pgkit("tune cartpole-ppo --space optimizer.lr=1e-4:1e-1:log")
    assert outcome.exit_code == 2
    assert outcome.stderr == "error: pgkit tune needs the package optuna: pip install 'pgkit-rl[tune]'\n"
