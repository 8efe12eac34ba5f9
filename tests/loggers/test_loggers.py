"""Runs in W&B, MLflow, Trackio and CSV, read back: each point once, also of runs that were stopped and resumed."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.logged_runs import from_trackio, in_parquet, logged, token
from helpers.resumable_runs import config

import pgkit
import pgkit.config.load
from pgkit.callbacks import CallbackError
from pgkit.config.load import load_config, parse_config, to_toml
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.loggers import make
from pgkit.logging import read_metrics

OUTLETS = ("wandb", "mlflow", "trackio", "csv")
LABELS = ["seed-0", "seed-1"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home without keys, and stores in it: Trackio reads where its own is when it is imported."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        yield


def available(outlet: str) -> str:
    """Skip the test if the outlet's package is missing."""
    if outlet != "csv":
        pytest.importorskip(outlet)
    return outlet


def members(*loggers: str, **changes: Any) -> list[TrainConfig]:
    """Two seeds that are logged and evaluated a few times."""
    return expand_seeds(config(seeds=2, steps=900, optimizer={"name": "adam", "lr": 0.01}, logger=loggers, **changes))


class Fails:
    """Raises once, at the row after so many steps, which loggers have got by then."""

    def __init__(self, env_steps: float) -> None:
        self.env_steps = env_steps

    def on_log(self, row: Any) -> None:
        if max(row.env_steps) > self.env_steps:
            raise RuntimeError("of a test")


@pytest.mark.parametrize("outlet", OUTLETS)
def test_a_resumed_run_has_each_point_once(outlet: str, stores: None, tmp_path: Path) -> None:
    """After a failure beyond the last checkpoint, so that some points were logged that are computed again."""
    run = tmp_path / "run"
    configs = members(available(outlet), checkpoint_points=1)
    with pytest.raises(CallbackError, match="of a test"):
        pgkit.train(configs, run, callbacks=[Fails(700)])
    before = token(run)
    result = pgkit.resume(run)
    assert result is not None
    assert token(run) == before
    assert not list(run.rglob("events.*"))
    assert pgkit.resume(run) is None, "a finished run is logged no second time"
    for seed, (label, member) in enumerate(logged(outlet, run, LABELS).items()):
        results = {f"final/{name}": result.table[seed][name] for name in ("return_mean", "return_std", "length_mean")}
        assert member.final == pytest.approx(results)
        assert member.points == in_parquet(run)[label]
        assert len({step for _, step, _ in member.points}) >= 4
        assert (member.group, member.lr) == ("short", 0.01)


@pytest.mark.parametrize("outlet", ["trackio", "mlflow"])
def test_a_run_that_is_trained_on_goes_on(outlet: str, stores: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pgkit.train(members(available(outlet)), run)
    first = logged(outlet, run, LABELS)
    pgkit.resume(run, steps=1800)
    for label, member in logged(outlet, run, LABELS).items():
        assert set(first[label].points) < set(member.points)
        assert member.points == in_parquet(run)[label]


def test_runs_of_one_name_are_not_mixed_up(stores: None, tmp_path: Path) -> None:
    available("trackio")
    for name in ("first", "second"):
        pgkit.train(members("trackio"), tmp_path / name)
    pgkit.train(members("trackio"), tmp_path / "second", overwrite=True)
    assert token(tmp_path / "first") != token(tmp_path / "second")
    assert from_trackio(tmp_path / "first", "seed-1").points == from_trackio(tmp_path / "second", "seed-1").points


def test_a_logger_that_comes_later_gets_all_rows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    configs = members("tensorboard")
    with pytest.raises(CallbackError):
        pgkit.train(configs, run, callbacks=[Fails(700)])
    path = run / "config.toml"
    path.write_text('logger = ["csv", "tensorboard"]\n' + path.read_text())
    pgkit.resume(run)
    assert [place.name for place in sorted(run.rglob("metrics.csv"), reverse=True)]
    (first, *_) = logged("csv", run, ["seed-0"])["seed-0"].points
    assert first in in_parquet(run)["seed-0"]
    assert len(list(run.rglob("events.*"))) == 3


def test_loggers_change_no_number(tmp_path: Path) -> None:
    runs = {name: pgkit.train(members(name), tmp_path / name) for name in ("tensorboard", "csv")}
    assert runs["tensorboard"].table == runs["csv"].table
    assert in_parquet(tmp_path / "tensorboard") == in_parquet(tmp_path / "csv")


def test_one_member_has_its_file_in_the_run_directory(tmp_path: Path) -> None:
    pgkit.train(members("csv")[:1], tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("env_steps,eval/return_mean,")
    assert len(lines) > 6
    assert {line.count(",") for line in lines} == {lines[0].count(",")}


def test_without_loggers_there_are_the_metrics(tmp_path: Path) -> None:
    pgkit.train(members(), tmp_path / "run")
    assert len(read_metrics(tmp_path / "run" / "metrics.parquet")) > 20
    names = {place.name for place in (tmp_path / "run").iterdir()}
    assert not names & {"summary", "seed-0", "loggers.json"}


def test_a_run_without_a_directory_is_recorded_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pgkit.train(members("csv"))
    assert not list(tmp_path.iterdir())


def test_an_outlet_that_fails_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "file").write_text("")

    class Blocks:
        def on_start(self, start: Any) -> None:
            (run / "seed-0" / "metrics.csv").unlink()
            (run / "seed-0" / "metrics.csv").mkdir()

    with pytest.raises(CallbackError, match=r"^callback MemberLogger: on_log .*logger 'csv' cannot log: .*metrics.csv"):
        pgkit.train(members("csv"), run, callbacks=[Blocks()])


# --- the key ---


@pytest.mark.parametrize(
    ("words", "loggers"),
    [
        ([], ("tensorboard",)),
        (["logger=csv"], ("csv",)),
        (['logger=["tensorboard", "csv"]'], ("tensorboard", "csv")),
        (["logger=none"], ()),
        (["logger=[]"], ()),
    ],
)
def test_the_key_is_a_name_or_names(words: list[str], loggers: tuple[str, ...]) -> None:
    chosen = load_config("cartpole-reinforce", words)
    assert chosen.logger == loggers
    assert parse_config(pgkit.config.load.to_table(chosen)) == chosen
    assert ("logger" in to_toml(chosen)) == (loggers != ("tensorboard",)), "older configurations had no such key"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("logger=wand", "unknown logger 'wand', did you mean 'wandb'"),
        ("logger=true", "logger must be a name or a list of names, got true"),
        ('logger=["csv", "csv"]', "logger: 'csv' comes twice"),
        ("report_to=wandb", "unknown key 'report_to'; use logger, such as"),
    ],
)
def test_mistakes_are_one_line(word: str, message: str) -> None:
    with pytest.raises(PgkitError, match=message) as error:
        load_config("cartpole-reinforce", [word])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("outlet", ["wandb", "mlflow", "trackio"])
def test_a_missing_package_is_named_before_anything_is_written(
    outlet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(make.importlib.util, "find_spec", lambda name: None if name == outlet else find(name))
    with pytest.raises(PgkitError, match=rf"^logger '{outlet}' needs .*: pip install 'pgkit-rl\[{outlet}\]'$"):
        pgkit.train(members(outlet), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_measurements_for_tensorboard_need_it() -> None:
    with pytest.raises(PgkitError, match=r"diagnose.every has no effect: .* TensorBoard"):
        pgkit.train(members("csv", diagnose={"every": 100}))


def test_ids_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    pgkit.train(members("csv"), tmp_path / "run")
    assert set(json.loads((tmp_path / "run" / "loggers.json").read_text())) == {"id"}
