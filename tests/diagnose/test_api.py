"""A diagnosis from end to end: what is measured, that it goes on where it was stopped, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pgkit
from pgkit.cli import app
from pgkit.diagnose import Diagnosis, Settings, diagnose
from pgkit.diagnose import api as diagnose_api
from pgkit.diagnose.report.json_file import read_diagnosis
from pgkit.diagnose.tasks import Task
from pgkit.errors import PgkitError
from pgkit.logging.tensorboard import PATTERN

pytestmark = pytest.mark.slow

SMALL = Settings(shares=(0.0, 0.5, 1.0), critical=1, copies=8, episodes=8, return_episodes=20)
QUICK = ["steps=20_000", "evaluation.points=2", "evaluation.final_episodes=5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "run"
    pgkit.train(pgkit.load_config("cartpole-actor-critic", [*QUICK, "seeds=2"]), place)
    return place


@pytest.fixture(scope="module")
def diagnosis(run: Path) -> Diagnosis:
    return diagnose(run, SMALL)


def test_every_section_is_measured(diagnosis: Diagnosis, run: Path) -> None:
    assert [point.member for point in diagnosis.points] == ["seed-0"] * 3 + ["seed-1"] * 3
    middle = diagnosis.points[1].quantities
    for name in ("return/mean", "noise/actor/signal", "post_update/K/mean", "parts/odd", "health/policy/entropy"):
        assert name in middle, name
    looked_at = [point for point in diagnosis.points if point.critical]
    assert looked_at
    for section in ("estimators/gae-0.99/variance", "curvature/top", "critic/bias", "cliff/alpha"):
        assert all(section in point.quantities for point in looked_at), section
    assert {verdict.member for verdict in diagnosis.verdicts} == {"seed-0", "seed-1"}
    assert (run / "diagnosis" / "report.html").is_file()
    stored = read_diagnosis(run / "diagnosis" / "diagnosis.json")
    assert stored.points[1].quantities["return/mean"] == middle["return/mean"]
    assert not (run / "diagnosis" / "parts").exists()


def test_parts_of_the_scan_are_left_out_and_change_nothing_else(
    diagnosis: Diagnosis, run: Path, tmp_path: Path
) -> None:
    settings = replace(SMALL, shares=(0.5,), critical=0, networks=False, budget_share=0.0)
    (short,) = diagnose(run, settings, member=0, out=tmp_path / "short").points
    whole = diagnosis.points[1].quantities
    left_out = {
        name for name in whole.keys() - short.quantities.keys() if name.split("/")[0] in ("health", "post_update")
    }
    assert {"post_update/K/half_share", "post_update/updates", "health/actor/constant"} <= left_out
    assert {"post_update/1/kl", "parts/odd", "health/policy/certain"} <= short.quantities.keys()
    for name in ("post_update/1/kl", "parts/odd", "health/policy/certain", "noise/actor/grad_norm", "return/mean"):
        assert repr(short.quantities[name]) == repr(whole[name]), name


def test_a_member_has_the_same_numbers_alone(diagnosis: Diagnosis, run: Path, tmp_path: Path) -> None:
    alone = diagnose(run, SMALL, member=1, out=tmp_path / "alone")
    together = [point for point in diagnosis.points if point.member == "seed-1"]
    for one, other in zip(alone.points, together, strict=True):
        shared = one.quantities.keys() & other.quantities.keys()
        assert "post_update/K/mean" in shared or one.share == 1
        assert all(repr(one.quantities[name]) == repr(other.quantities[name]) for name in shared)


def test_a_stopped_diagnosis_goes_on_where_it_was(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(shares=(0.0, 0.5), critical=0, copies=8, episodes=8, return_episodes=20)
    measured: list[str] = []
    original = diagnose_api.measure

    def stop_at_second(task: Task) -> object:
        if measured:
            raise KeyboardInterrupt
        measured.append(task.name)
        return original(task)

    monkeypatch.setattr(diagnose_api, "measure", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        diagnose(run, settings, member=0, out=tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out" / "parts").iterdir()] == measured

    def remember(task: Task) -> object:
        measured.append(task.name)
        return original(task)

    monkeypatch.setattr(diagnose_api, "measure", remember)
    resumed = diagnose(run, settings, member=0, out=tmp_path / "out")
    assert len(measured) == len(set(measured)) == 2
    monkeypatch.undo()
    whole = diagnose(run, settings, member=0, out=tmp_path / "whole")
    assert [repr(point.quantities) for point in resumed.points] == [repr(point.quantities) for point in whole.points]


def test_the_command_says_what_it_found_and_what_it_would_cost(run: Path, tmp_path: Path) -> None:
    words = [
        "diagnose",
        str(run),
        "--at",
        "0,50",
        "--critical",
        "0",
        "--copies",
        "8",
        "--episodes",
        "8",
        "--workers",
        "1",
    ]
    forecast = CliRunner().invoke(app, [*words, "--dry-run"])
    assert forecast.exit_code == 0, forecast.output
    assert "4 points, 0 of them closely" in forecast.output
    done = CliRunner().invoke(app, [*words, "-q", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "The return of seed-0 was" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere"),
        (["RUN", "--member", "7"], "7"),
        (["RUN", "--at", "0,200"], "percentages between 0 and 100"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    place = tmp_path / "out"
    words = [str(run) if word == "RUN" else word for word in words]
    result = CliRunner().invoke(app, ["diagnose", *words, "-q", "--out", str(place)])
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
    assert not place.exists()


@pytest.mark.parametrize("option", [["--member", "3"], ["--budget", "60"], ["--dry-run"]])
def test_options_without_effect_on_a_comparison_are_refused(tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "plan.json").write_text("{}")
    result = CliRunner().invoke(app, ["diagnose", str(tmp_path), *option])
    assert result.exit_code == 2
    assert f"{option[0]} has no effect on a comparison" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.points=0"], "diagnose.every has no effect"),
        (["policy.network=gru", "env.reward_scale=0.05"], "the policy is recurrent"),
    ],
)
def test_measuring_while_training_is_refused_where_it_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(PgkitError, match=said):
        pgkit.train(pgkit.load_config("cartpole-ppo", [*QUICK, "diagnose.every=10_000", *words]))


def test_normalized_observations_and_rewards_are_measured_while_training(tmp_path: Path) -> None:
    words = [
        "diagnose.every=10_000",
        "diagnose.copies=8",
        "env.normalize_rewards=true",
        "env.normalize_observations=true",
    ]
    pgkit.train(pgkit.load_config("cartpole-actor-critic", [*QUICK, "steps=3_000", *words]), tmp_path / "run")
    assert list((tmp_path / "run" / "while-training").glob(PATTERN))


def test_measuring_while_training_changes_no_bit_and_reaches_tensorboard(tmp_path: Path) -> None:
    plain = pgkit.train(pgkit.load_config("cartpole-actor-critic", QUICK), tmp_path / "plain")
    watched = pgkit.train(
        pgkit.load_config("cartpole-actor-critic", [*QUICK, "diagnose.every=10_000", "diagnose.copies=8"]),
        tmp_path / "watched",
    )
    assert plain.final.returns.tolist() == watched.final.returns.tolist()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = (tmp_path / "watched" / "while-training").glob(PATTERN)
    events = EventAccumulator(str(path))
    events.Reload()
    norms = events.Scalars("diagnosis/noise/actor/grad_norm")
    assert next(event.step for event in norms) == 0
    assert len(norms) == 3
    assert all(event.value > 0 for event in norms)
