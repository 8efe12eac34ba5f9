"""Runs whose optimizers are judged at another point than the one at which policies act and learn."""

import os
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.captured_updates import no_snapshots
from helpers.resumable_runs import SCHEDULE_FREE, config, same, same_records
from helpers.trees import assert_equal

import pgkit
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.runs import checkpoint
from pgkit.runs.reader import parts_of, saved_members
from pgkit.system.signals import Stopped
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, update
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, build
from pgkit.training.read_initial import read_initial
from pgkit.training.result import TrainResult
from pgkit.tree import concat_members, take_tree
from pgkit.types import Params

DIVERGES = {"name": "schedule_free_sgd", "lr": 1e30}
TABLES = [*SCHEDULE_FREE, DIVERGES]
APART = [True, True, True, False]
"""Whether a member is judged elsewhere than where it acts; one that has failed is not."""


class Run(NamedTuple):
    """A run of four members, with what is in its last checkpoint: where they act, and their states."""

    configs: list[TrainConfig]
    result: TrainResult
    directory: Path
    acting: Params


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    configs = [config(seed=k, steps=500, optimizer=table) for k, table in enumerate(TABLES)]
    directory = tmp_path_factory.mktemp("runs") / "run"
    result = pgkit.train(configs, directory)
    parts = parts_of(checkpoint.load_latest(directory / "checkpoints"))
    acting = concat_members([part["params"] for part in parts], [part["members"] for part in parts])
    return Run(configs, result, directory, acting)


def test_what_is_reported_is_the_evaluation_point(run: Run) -> None:
    assert [row["failed"] for row in run.result.table] == [False, False, False, True]
    shown, acting = (params["actor.0.weight"] for params in (run.result.params, run.acting))
    assert (shown != acting).flatten(1).any(1).tolist() == APART
    assert all(leaf.isfinite().all() for leaf in run.result.params.values())
    _, params, _ = saved_members(run.directory)
    assert_equal(params, run.result.params)


def test_evaluations_of_the_run_directory_repeat_those_of_the_run(run: Run) -> None:
    final = run.configs[0].evaluation.final_episodes
    table = pgkit.evaluate_run(run.directory, episodes=final).table
    assert [row["return_mean"] for row in table] == [row["return_mean"] for row in run.result.table]


def test_a_loaded_policy_predicts_at_the_evaluation_point(run: Run) -> None:
    policy = pgkit.load(run.directory, member=0)
    assert_equal(policy.params, take_tree(run.result.params, torch.tensor([0])))
    assert policy.predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)


def test_members_have_the_bits_that_they_have_alone(run: Run) -> None:
    alone = pgkit.train(run.configs[0])
    assert_equal(alone.params, take_tree(run.result.params, torch.tensor([0])))
    together = [evaluation for evaluation in run.result.evaluations if evaluation.member == 0]
    assert_equal([e.episodes.returns for e in alone.evaluations], [e.episodes.returns for e in together])


def test_a_run_that_is_stopped_ends_in_the_same_bits(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, count = Monitor.maybe_checkpoint, iter(range(1000))

    def stopping(self: Monitor) -> None:
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        original(self)

    monkeypatch.setattr(Monitor, "maybe_checkpoint", stopping)
    with pytest.raises(Stopped):
        pgkit.train(run.configs, tmp_path / "run")
    same(run.result, pgkit.resume(tmp_path / "run"))
    same_records(run.directory, tmp_path / "run")


def test_the_best_of_each_member_is_an_evaluation_point(run: Run) -> None:
    _, best, _ = saved_members(run.directory, best=True)
    population = build(run.configs[:1])
    shown, acting = [population.eval_params["actor.0.weight"]], [population.params["actor.0.weight"]]
    while population.unfinished.any():
        update(population)
        shown.append(population.eval_params["actor.0.weight"])
        acting.append(population.params["actor.0.weight"])
    assert any(torch.equal(best["actor.0.weight"][:1], leaf) for leaf in shown)
    assert not any(torch.equal(best["actor.0.weight"][:1], leaf) for leaf in acting[2:])


@pytest.mark.parametrize("optimizer_state", [False, True])
def test_another_run_begins_at_the_shown_point_and_goes_on_at_the_acting_one(run: Run, optimizer_state: bool) -> None:
    """With the optimizer's state its moments belong to the parameters that it has moved."""
    init = {"run": str(run.directory), "member": 0, "optimizer_state": optimizer_state}
    configs = expand_seeds(config(seed=3, optimizer=TABLES[0], init=init))
    population = build(configs, initial=read_initial(configs)[0])
    row = torch.tensor([0])
    assert_equal(population.params, take_tree(run.acting if optimizer_state else run.result.params, row))
    for name, leaf in population.eval_params.items():
        torch.testing.assert_close(leaf, run.result.params[name][:1], rtol=1e-6, atol=1e-7)


def population_of(*tables: object) -> Population:
    return build([config(seed=k, optimizer=table, env={"id": "CartPole-v1"}) for k, table in enumerate(tables)])


def test_optimizers_without_such_a_point_write_and_compute_nothing_more() -> None:
    plain = population_of({"name": "adam"})
    assert plain.eval_params is plain.params
    assert "eval_params" not in plain.state()


def test_a_resumed_population_is_judged_where_it_was() -> None:
    """From its parameters and its optimizer's state alone; also of members that trained without Python."""
    tables = SCHEDULE_FREE[:2]
    population = population_of(*tables)
    assert CapturedUpdates(compute_update).run(population, 9, no_snapshots(population)) is not None
    saved = population.state()
    resumed = population_of(*tables).resumed({key: value for key, value in saved.items() if key != "eval_params"})
    assert_equal(resumed.eval_params, saved["eval_params"])
    assert not torch.equal(saved["eval_params"]["actor.0.weight"], saved["params"]["actor.0.weight"])
