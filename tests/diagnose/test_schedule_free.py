"""A run that is judged at another point than the one at which it acts is diagnosed where it acts."""

from pathlib import Path

import pytest
import torch

import pgkit
from pgkit.diagnose import Settings, diagnose
from pgkit.diagnose.copies import burn_in, copies_of, learn, observed_update, warm
from pgkit.diagnose.points import open_run
from pgkit.runs import checkpoint
from pgkit.runs.reader import parts_of

OPTIMIZER = {"name": "schedule_free_adamw", "lr": 0.01, "max_grad_norm": 0.5}
QUICK = ["evaluation.points=1", "evaluation.final_episodes=2"]


def trained(place: Path, steps: int) -> Path:
    config = pgkit.load_config("cartpole-actor-critic", [*QUICK, f"steps={steps}"])
    pgkit.train(config.model_copy(update={"optimizer": OPTIMIZER}), place)
    return place


def test_copies_act_and_go_on_where_the_member_does(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", 600)
    with open_run(run, (1.0,)) as points:
        ((point,),) = points.at((1.0,))
        (path,) = [path for path in points.paths if checkpoint.step_of(path) == point.env_steps]
        (part,) = [part for part in parts_of(checkpoint.load(path)) if len(part["members"])]
    assert not torch.equal(part["params"]["actor.0.weight"], part["eval_params"]["actor.0.weight"])
    assert torch.equal(point.params["actor.0.weight"], part["params"]["actor.0.weight"])
    with copies_of(point, 2, 0) as population:
        burn_in(population)
        first = observed_update(population)
        assert torch.equal(first.before["actor.0.weight"][:1], point.params["actor.0.weight"])
        learn(population, 2)
        assert population.updates == point.updates + 3
        assert all(leaf.isfinite().all() for leaf in population.params.values())
    with copies_of(point, 2, 0, fresh_optimizer=True) as population:
        assert torch.equal(population.eval_params["actor.0.weight"], population.params["actor.0.weight"])
        warm(population, 2)
        assert torch.equal(population.params["actor.0.weight"][:1], point.params["actor.0.weight"])


@pytest.mark.slow
def test_every_section_is_measured(tmp_path: Path) -> None:
    settings = Settings(shares=(0.0, 0.5, 1.0), critical=1, copies=8, episodes=8, return_episodes=20)
    diagnosis = diagnose(trained(tmp_path / "run", 20_000), settings)
    assert len(diagnosis.points) == 3
    assert all("return/mean" in point.quantities for point in diagnosis.points)
    (critical,) = [point.quantities for point in diagnosis.points if point.critical]
    for name in ("noise/actor/signal", "post_update/K/mean", "curvature/top", "cliff/alpha"):
        assert name in critical, name
