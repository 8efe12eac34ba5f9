"""Runs that begin with the parameters of another run (``init``)."""

import json
import os
import re
import shutil
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import pgkit as command_line
from helpers.resumable_runs import ADAM, CARTPOLE, config, same, same_records
from helpers.trees import assert_equal

import pgkit
from pgkit import optim
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.runs.reader import saved_members
from pgkit.system.signals import Stopped
from pgkit.training import monitor
from pgkit.training.population import Population, build
from pgkit.training.read_initial import read_initial
from pgkit.training.result import TrainResult
from pgkit.tree import take_tree


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members that have trained a little, with all that has a state."""
    directory = tmp_path_factory.mktemp("source") / "run"
    pgkit.train(config(seeds=2, steps=400), directory, workers=2)
    return directory


def going_on(source: Path, **changes: Any) -> TrainConfig:
    init = {"run": str(source), **changes.pop("init", {})}
    return config(**{"steps": 400, "seed": 7, **changes}, init=init)


def started(config: TrainConfig) -> Population:
    """The members before their first update."""
    configs = expand_seeds(config)
    return build(configs, initial=read_initial(configs)[0])


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"seeds": 2}, [0, 1]),
        ({"seeds": 3, "init": {"member": 1}}, [1, 1, 1]),
        ({"init": {"member": "seed-0"}}, [0]),
        ({"init": {"member": 1, "best": True}}, [1]),
    ],
)
def test_members_begin_with_parameters_and_statistics_of_the_other_run(
    source: Path, changes: dict[str, Any], rows: list[int]
) -> None:
    best = changes.get("init", {}).get("best", False)
    _, params, obs_stats = saved_members(source, best)
    population = started(going_on(source, **changes))
    assert not torch.equal(params["actor.0.weight"][0], params["actor.0.weight"][1])
    assert_equal(dict(population.params), take_tree({name: params[name] for name in population.params}, rows_of(rows)))
    assert_equal(population.collector.state.obs_stats, take_tree(obs_stats, rows_of(rows)))
    assert best or float(population.collector.state.obs_stats["count"][0]) > 100
    assert population.env_steps.tolist() == [0.0] * len(rows)


def rows_of(rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)


def test_with_one_member_there_nothing_needs_to_be_named(source: Path, tmp_path: Path) -> None:
    pgkit.train(going_on(source, init={"member": 0}), tmp_path / "one")
    result = pgkit.train(going_on(tmp_path / "one", seeds=2, steps=100), tmp_path / "two")
    assert len(result.table) == 2
    stored = tomllib.loads((tmp_path / "two" / "config.toml").read_text())["init"]
    assert stored == {"run": str(tmp_path / "one"), "best": False, "optimizer_state": False}
    provenance = json.loads((tmp_path / "two" / "provenance.json").read_text())["init"]
    assert provenance["run"] == str(tmp_path / "one")
    assert provenance["members"] == ["seed-7", "seed-7"]
    assert (tmp_path / "one" / "checkpoints" / provenance["checkpoint"]).is_file()


def test_each_member_has_the_bits_that_it_has_alone(source: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"init": {"optimizer_state": True}}
    together = pgkit.train(going_on(source, seeds=2, **changes), tmp_path / "together", workers=2)
    init = {"optimizer_state": True, "member": 1}
    alone = pgkit.train(going_on(source, seed=8, init=init))
    assert_equal(alone.params, take_tree(together.params, rows_of([1])))
    drawn = pgkit.train(config(steps=400, seed=8))
    assert not torch.equal(drawn.params["actor.0.weight"], alone.params["actor.0.weight"])


def test_a_stopped_run_is_resumed_without_the_other_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(source, copied)
    changed = going_on(copied, seeds=2, init={"optimizer_state": True})
    whole = pgkit.train(changed, tmp_path / "whole")
    half = tmp_path / "half"
    train_half(changed, half, whole)
    shutil.rmtree(copied)
    resumed = pgkit.resume(half)
    assert resumed is not None
    assert resumed.table == whole.table
    same(whole, resumed)
    same_records(tmp_path / "whole", half)


def train_half(configuration: TrainConfig, directory: Path, whole: TrainResult) -> None:
    """Train, but stop halfway."""
    original = monitor.Monitor.maybe_checkpoint
    updates = max(part["updates"] for part in whole.parts)
    count = iter(range(updates))

    def stopping(self: monitor.Monitor) -> None:
        if next(count) == updates // 2:
            os.kill(os.getpid(), signal.SIGINT)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor.Monitor, "maybe_checkpoint", stopping)
        with pytest.raises(Stopped):
            pgkit.train(configuration, directory)


# --- the optimizer's state ---


def table_of(name: str) -> dict[str, Any]:
    """A table of an optimizer of this name."""
    table: dict[str, Any] = {"name": name, "lr": 1e-3, "max_grad_norm": 0.5}
    return table | {"critic": {"name": "adam", "lr": 1e-3}} if name in ("npg", "trpo") else table


@pytest.mark.parametrize("name", optim.list_optimizers())
def test_moments_are_taken_and_settings_are_not(name: str, tmp_path: Path) -> None:
    same: dict[str, Any] = {"policy": {"hidden": [8, 8]}, "evaluation": {"points": 0, "final_episodes": 1}, "seeds": 2}
    before = config(steps=60, optimizer=table_of(name), **same)
    result = pgkit.train(before, tmp_path / "run")
    (part,) = result.parts
    after = config(seed=3, optimizer=table_of(name) | {"lr": 0.25}, **same)
    after = after.model_copy(update={"init": going_on(tmp_path / "run", init={"optimizer_state": True}).init})
    state = started(after).opt_state
    kept, settings = split_state(optim.from_config([after.optimizer] * 2).dump(state))
    expected, _ = split_state(part["opt_state"])
    assert_equal(kept, expected)
    rates = [float(tensor[0]) for path, tensor in settings if path[-1] == "lr" and path[-2] == "hyperparameters"]
    assert 0.25 in rates


def split_state(tree: Any, path: tuple[Any, ...] = ()) -> tuple[list[Any], list[Any]]:
    """The tensors of a dumped state that are moments and counters, and all others, each with its path."""
    if isinstance(tree, torch.Tensor):
        entry = (path, tree)
        return ([entry], []) if {"member_state", "leaf_state"} & set(path) else ([], [entry])
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    pairs = [split_state(child, (*path, key)) for key, child in children]
    return [one for kept, _ in pairs for one in kept], [one for _, rest in pairs for one in rest]


def test_without_being_asked_for_the_optimizer_begins_anew(source: Path) -> None:
    fresh = started(going_on(source, seeds=2)).opt_state
    taken = started(going_on(source, seeds=2, init={"optimizer_state": True})).opt_state
    moments, others = (torch.cat([t.flatten() for _, t in split_state(state)[0]]) for state in (fresh, taken))
    assert not torch.equal(moments, others)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 3}, "RUN has 2 members, this run has 3: init.member names one for all of them"),
        ({"init": {"member": 9}}, "init.member: unknown member '9' (allowed: seed-0, seed-1, or a seed)"),
        ({"seeds": 2, "policy": {"hidden": [9]}}, "init.run: policy.hidden is [8] in RUN and [9] in this run"),
        (
            {"seeds": 2, "policy": {"hidden": [8], "activation": "relu"}},
            'policy.activation is "tanh" in RUN and "relu" in this run',
        ),
        (
            {"seeds": 2, "env": CARTPOLE | {"normalize_observations": False}},
            "env.normalize_observations is true in RUN and false in this run",
        ),
        (
            {"seeds": 2, "env": {"id": "Pendulum-v1", "normalize_observations": True}},
            "the actions of RUN (CartPole-v1) are Discrete(2), those of this run (Pendulum-v1) Box(",
        ),
        (
            {"seeds": 2, "env": {"id": "helpers.probe_envs:ProbeCounting-v0", "normalize_observations": True}},
            "init.run: the networks of RUN do not fit: actor.0.weight is (4, 8) there and (3, 8) in this run; ",
        ),
        (
            {"seeds": 2, "init": {"optimizer_state": True}, "optimizer": ADAM | {"name": "momentum"}},
            "init.optimizer_state: the optimizer of RUN keeps another state than this run's",
        ),
        (
            {"seeds": 2, "init": {"optimizer_state": True}, "optimizer": {"name": "torch.optim:Adam"}},
            "init.optimizer_state: the optimizer of RUN keeps another state than this run's",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    source: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(pgkit.PgkitError, match=re.escape(message.replace("RUN", str(source)))) as caught:
        pgkit.train(going_on(source, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_state_of_a_foreign_optimizer_is_not_taken(tmp_path: Path) -> None:
    quick = {"points": 0, "final_episodes": 1}
    table = {"name": "torch.optim:Adam"}
    pgkit.train(config(steps=60, optimizer=table, evaluation=quick), tmp_path / "run")
    with pytest.raises(pgkit.PgkitError, match="keep their settings in their state"):
        started(going_on(tmp_path / "run", optimizer=table, init={"optimizer_state": True}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train cartpole-ppo init=nothing", "init.run: unknown run 'nothing'"),
        ("train cartpole-ppo init.best=true", "init.run is missing"),
        ("train cartpole-ppo init.rnu=x", "unknown key 'init.rnu', did you mean 'init.run'?"),
        ("train cartpole-ppo init=3", "init must be a table, got 3"),
        ("train cartpole-ppo init=x init.member=1.5", "init.member must be a seed or a label such as seed-3, got 1.5"),
        (
            "train cartpole-ppo init=x init.best=true init.optimizer_state=true",
            "init.optimizer_state = true has no effect: init.best = true takes the best evaluation",
        ),
        ("compare compare-cartpole init=x --dry-run", 'init.run = "x" has no effect: the runs of a comparison begin'),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line(words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("runs").exists()


def test_the_command_line_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line(f"train {source}/config.toml name=next init={source} init.optimizer_state=true steps=200")
    assert done.exit_code == 0, done.stderr
    assert re.search(rf"^init +{source} \(optimizer_state=True\)$", done.stdout, re.MULTILINE)
    assert (tmp_path / "runs" / "next" / "result.json").is_file()


# --- longer ---


@pytest.mark.parametrize("words", ["steps=900", "--steps 9e2", "total_timesteps=900"])
def test_resume_takes_steps_as_train_does_and_says_what_becomes_of_schedules(words: str, tmp_path: Path) -> None:
    optimizer = {"name": "adam", "lr": 0.01, "schedule": {"lr": "linear", "beta1": {"kind": "kl", "most": 0.95}}}
    run = tmp_path / "run"
    pgkit.train(config(steps=300, optimizer=optimizer), run)
    done = command_line(f"resume {run} {words}")
    assert done.exit_code == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == f"run {run}"
    assert re.fullmatch(r"steps 300 -> 900 per seed, 3\d\d of them are trained", lines[1])
    schedules = {line.split()[3]: line for line in lines if line.startswith("schedule of main")}
    assert re.search(r"linear, over all 900 steps: it stood at 100% of its way, and goes on at 3\d%", schedules["lr"])
    assert schedules["beta1"].endswith("kl, which no number of steps changes")
    assert tomllib.loads((run / "config.toml").read_text())["steps"] == 900


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("seed=3", "seed stays as it is in a run that is resumed, only steps can grow"),
        ("--lr 3", "optimizer.lr stays as it is in a run that is resumed, only steps can grow"),
        ("steps=900 --steps 800", "steps is stated more than once"),
        ("steps=many", 'steps must be a whole number, got "many"'),
        ("900", "override '900' is not of the form key=value"),
    ],
)
def test_resume_changes_nothing_else(words: str, message: str, source: Path) -> None:
    before = (source / "config.toml").read_text()
    done = command_line(f"resume {source} {words}")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (source / "config.toml").read_text() == before
