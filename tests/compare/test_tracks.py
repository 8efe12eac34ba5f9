"""The track "all tuned": the same quasi-random points for every arm, nothing but settings that were run is selected."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.hparams import hparams_tab
from helpers.small_comparison import tables, write_toml
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare import api
from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.execution.store import Store
from pgkit.compare.execution.worker import run_batch
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, read_plan, stored_plan
from pgkit.compare.plan.search_space import RANGES, Range
from pgkit.compare.selection.stages import stages, tuned
from pgkit.compare.tables import Analysis, check_tables, schemas

WORDS = ('track="all tuned"', "settings=4", 'agents=["actor-critic"]')
SCALES = {"CartPole-v1": ScoreScale(22.2, 500, 475)}
CASE = ("CartPole-v1", "actor-critic")
BASELINES = pd.DataFrame(
    [{"environment": CASE[0], "policy": "random", "episodes": 9, "return_mean": 22.2, "return_sd": 1.0}]
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_toml(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a comparison of this track that was run."""
    place = tmp_path_factory.mktemp("tuned")
    api.compare(write_toml(place), WORDS, place / "c", workers=2)
    return place / "c"


# --- the plan ---


def test_the_plans_of_the_first_track_keep_their_hash() -> None:
    plan = read_plan("compare-cartpole", ["tier=standard"])
    assert plan.hash == "1a2ba6e0ba795b37eb4c0f802d1abf373d3247c933d0dd93f0f4c3f108f85489"
    assert read_plan("compare-cartpole", ["tier=standard", "evaluation.greedy=false"]).hash == plan.hash
    assert read_plan("compare-cartpole", ["tier=standard", 'track="lr only"']).hash == plan.hash


def test_what_decides_numbers_is_hashed(small: Path) -> None:
    hashes = [
        read_plan(small, prose).hash
        for prose in (
            [],
            ["evaluation.greedy=true"],
            ["track=all tuned"],
            ["track=all tuned", "settings=8"],
            ["track=all tuned", "spaces.sgd.lr={low=1e-3,high=2e-1}"],
            ["track=all tuned", 'spaces."fast adam".beta1={low=0.5,high=0.6,scale="linear"}'],
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert read_plan(small, ["track=all tuned"]).hash == hashes[2]


def test_a_stored_plan_is_the_plan(small: Path) -> None:
    plan = read_plan(small, WORDS)
    assert stored_plan(plan.as_data(), "plan.json").as_data() == plan.as_data()
    assert "learning_rates" not in plan.as_data()


@pytest.mark.parametrize(("tier", "count"), [("quick", 16), ("standard", 32), ("publication", 64)])
def test_every_arm_has_as_many_settings(tier: str, count: int) -> None:
    plan = read_plan("compare-cartpole", ["track=all tuned", f"tier={tier}"])
    assert {len(of_arm) for of_arm in plan.settings.values()} == {count}
    assert {arm: list(space) for arm, space in plan.spaces.items()} == {
        "sgd": ["lr"],
        "momentum": ["lr", "momentum"],
        "rmsprop": ["lr", "alpha", "eps"],
        "adam": ["lr", "beta1", "beta2", "eps"],
    }
    for arm, of_arm in plan.settings.items():
        for name, each in plan.spaces[arm].items():
            values = [setting[name] for setting in of_arm]
            assert min(values) >= each.low
            assert max(values) <= each.high
            cells = sorted(int(each.place(value) * count * 0.999) for value in values)
            assert len(set(cells)) > 0.9 * count, "one value in each of so many equal parts, but for rounding"


def test_all_arms_have_the_same_points(small: Path) -> None:
    plan = read_plan("compare-cartpole", ["track=all tuned"])
    for arm, of_arm in plan.settings.items():
        assert [setting["lr"] for setting in of_arm] == [setting["lr"] for setting in plan.settings["adam"]], arm
    ours, theirs = plan.spaces["momentum"]["momentum"], plan.spaces["adam"]["beta1"]
    places = [(ours.place(a["momentum"]), theirs.place(b["beta1"])) for a, b in zip(*_two(plan), strict=True)]
    np.testing.assert_allclose(*zip(*places, strict=True), atol=1e-12)
    more = read_plan("compare-cartpole", ["track=all tuned", "settings=20"])
    assert more.settings["adam"][:16] == plan.settings["adam"]
    other = read_plan("compare-cartpole", ["track=all tuned", 'optimizers=["lion", {name="adam", label="a"}]'])
    assert other.settings["a"] == plan.settings["adam"]


def _two(plan: Plan) -> list[tuple[dict[str, float], ...]]:
    return [plan.settings["momentum"], plan.settings["adam"]]  # type: ignore[list-item]


def test_what_is_stated_or_off_is_held(small: Path) -> None:
    plan = read_plan(small, ["track=all tuned", 'optimizers=["rmsprop", "adamw", {name="adam", beta2=0.9}, "npg"]'])
    assert list(plan.spaces["rmsprop"]) == ["lr", "alpha", "eps"], "momentum and weight decay are off"
    assert list(plan.spaces["adamw"]) == ["lr", "beta1", "beta2", "eps", "weight_decay"]
    assert list(plan.spaces["adam"]) == ["lr", "beta1", "eps"]
    assert list(plan.spaces["npg"]) == ["lr"]
    assert plan.arms["adam"] == {"name": "adam", "beta2": 0.9, "weight_decay": 0.0}
    assert plan.spaces["adam"]["eps"] == RANGES["eps"]
    assert plan.spaces["adam"]["lr"] == Range(low=1e-3, high=1e-1)


def test_own_ranges_stand(small: Path) -> None:
    prose = ['spaces.sgd={weight_decay={low=1e-6,high=1e-2}, lr={low=0.5,high=0.6,scale="linear"}}']
    plan = read_plan(small, ["track=all tuned", *prose])
    assert list(plan.spaces["sgd"]) == ["lr", "weight_decay"]
    assert all(0.5 <= setting["lr"] <= 0.6 for setting in plan.settings["sgd"])


@pytest.mark.parametrize("scale", ["log", "1-x log", "linear"])
def test_ranges_go_from_end_to_end(scale: str) -> None:
    each = Range.model_validate({"low": 0.1, "high": 0.9, "scale": scale})
    places = np.linspace(0, 1, 9)
    values = [each.at(place) for place in places.tolist()]
    assert (values[0], values[-1]) == (0.1, 0.9)
    assert values == sorted(values)
    np.testing.assert_allclose([each.place(value) for value in values], places, atol=1e-3)
    middle = {"log": 0.3, "1-x log": 0.7, "linear": 0.5}[scale]
    assert values[4] == pytest.approx(middle)


def test_a_run_is_trained_with_its_setting(small: Path) -> None:
    plan = read_plan(small, WORDS)
    setting = plan.settings["fast adam"][2]
    config = plan.train_config(Run("tuning", *CASE, "fast adam", setting["lr"], 5, 2))
    assert {name: config.optimizer[name] for name in setting} == dict(setting)
    assert (config.optimizer["beta2"], config.optimizer["critic"]["lr"], config.seed) == (0.9, 0.01, 5)


ALL = "track=all_tuned"
MISTAKES = {
    "track": ("track=both", "track must be 'lr only' or 'all tuned', got \"both\""),
    "settings of the other track": ("settings=4", 'settings has no effect: it needs track = "all tuned"'),
    "spaces of the other track": ("spaces.sgd.lr={low=1,high=2}", 'spaces has no effect: it needs track = "all tuned"'),
    "too few settings": (f"{ALL} settings=1", "settings must be greater than or equal to 2, got 1"),
    "unknown arm": (f"{ALL} spaces.adm.lr={{low=1,high=2}}", "spaces: unknown arm 'adm'"),
    "unknown hyperparameter": (f"{ALL} spaces.sgd.beta1={{low=1,high=2}}", "unknown hyperparameter 'beta1'"),
    "unknown key": (f"{ALL} spaces.sgd.lr={{low=1,high=2,max=3}}", "unknown key 'spaces.sgd.lr.max'"),
    "no end": (f"{ALL} spaces.sgd.lr={{low=1}}", "spaces.sgd.lr.high is missing"),
    "order": (f"{ALL} spaces.sgd.lr={{low=2,high=1}}", "a range's low must be below its high, got 2.0 and 1.0"),
    "log of nothing": (f"{ALL} spaces.sgd.lr={{low=0,high=1}}", "must have low > 0, got 0.0"),
    "log of one": (f"{ALL} spaces.sgd.lr={{low=0,high=1,scale='1-x_log'}}", "must have high < 1, got 1.0"),
    "scale": (f"{ALL} spaces.sgd.lr={{low=0.1,high=1,scale='exp'}}", "spaces.sgd.lr.scale must be 'log'"),
    "value and range": (
        f"{ALL} optimizers=[{{name='adam',beta1=0.5}}] spaces.adam.beta1={{low=0.1,high=0.2}}",
        "spaces.adam.beta1: optimizers states a value of it",
    ),
    "no number": (
        f"{ALL} optimizers=['torch.optim:Adam'] spaces.Adam.betas={{low=0.1,high=0.2}}",
        "its default is not one number but [0.9, 0.999]",
    ),
    "out of range": (
        f"{ALL} optimizers=['adam'] spaces.adam.beta1={{low=0.5,high=1.5}}",
        "optimizer (main): beta1 is 1.5; it must be at least 0 and below 1",
    ),
    "one rate": (f"{ALL} learning_rates=[0.1]", "learning_rates = [0.1] span no range of learning rates"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_writes_nothing(mistake: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prose, fragment = MISTAKES[mistake]
    monkeypatch.chdir(small.parent)
    given = [word.replace("all_tuned", "all tuned").replace("1-x_log", "1-x log") for word in prose.split(" ")]
    result = CliRunner().invoke(app, ["compare", "small.toml", *given])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert fragment in result.stderr
    assert [path.name for path in small.parent.iterdir()] == ["small.toml"]


def test_a_dry_run_tells_the_spaces_and_writes_nothing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    result = CliRunner().invoke(app, ["compare", "small.toml", *WORDS, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "all tuned: sgd, fast adam at 4 settings each" in result.stdout
    assert "fast adam: lr 0.001 to 0.1 (log-uniform); beta1 0 to 0.999 (1 - x log-uniform)" in result.stdout
    (tuning,) = [line for line in result.stdout.splitlines() if line.split()[:2] == ["tuning", CASE[0]]]
    assert "16" in tuning.split()  # 2 arms x 4 settings x 2 seeds
    assert [path.name for path in small.parent.iterdir()] == ["small.toml"]


# --- stages and analysis, on results with a known answer ---


def stored_rows(runs: list[Run], level: dict[int, float], diverged: tuple[int, ...] = ()) -> pd.DataFrame:
    """Flat curves whose score is the setting's level, with the noise of the seed."""
    rows = []
    for one in runs:
        score = 22.2 + 477.8 * (level[one.setting] + 0.001 * (one.seed % 7))
        row = {"diverged": one.setting in diverged, "env_steps": 300, "at": [0.0] * 5, "returns": [score] * 5}
        if one.setting in diverged:
            row["returns"] = [score, score, np.nan, np.nan, np.nan]
        rows.append({**one._asdict(), **row, "final": [score] * 3, "greedy": [score] * 3})
    return pd.DataFrame(rows)


def analysed(plan: Plan, level: dict[int, float], diverged: tuple[int, ...] = ()) -> Analysis:
    stored = pd.DataFrame(columns=[*Run._fields])
    while todo := stages(plan, SCALES, stored)[-1].todo:
        rows = stored_rows(todo, level, diverged)
        stored = pd.concat([stored, rows], ignore_index=True) if len(stored) else rows
    return analyse(plan, SCALES, BASELINES, stored, {"versions": {}, "sessions": []})


LEVEL = {0: 0.2, 1: 0.5, 2: 0.4, 3: 0.1}


def test_the_best_setting_is_selected_and_the_second_best_evaluated(small: Path) -> None:
    plan = read_plan(small, [*WORDS, "spaces.sgd.lr={low=0.01,high=0.1}"])
    (first,) = stages(plan, SCALES, pd.DataFrame(columns=[*Run._fields]))
    assert [(one.optimizer, one.setting, one.seed) for one in first.todo] == [
        (arm, setting, seed) for setting in range(4) for arm in plan.arms for seed in (0, 1)
    ]
    # Noise makes setting 1 the choice of one seed, setting 2 that of the other.
    rows = stored_rows(first.todo, LEVEL)
    rows.loc[(rows["setting"] == 2) & (rows["seed"] == 1), "returns"] = pd.Series(
        [[22.2 + 477.8 * 0.55] * 5] * len(rows)
    )
    known = stages(plan, SCALES, rows)
    assert [stage.name for stage in known] == ["tuning", "evaluation"], "no grid is extended"
    assert {one.setting for one in known[1].todo} == {1}
    assert {one.lr for one in known[1].todo} == {plan.settings[arm][1]["lr"] for arm in plan.arms}
    found = tuned(plan, SCALES, rows)[CASE]
    assert [found.second(arm) for arm in plan.arms] == [plan.points(arm)[2] for arm in plan.arms]
    rows = pd.concat([rows, stored_rows(known[1].todo, LEVEL)], ignore_index=True)
    neighbours = stages(plan, SCALES, rows)[-1]
    assert neighbours.name == "neighbour"
    assert {one.setting for one in neighbours.todo} == {2}, "the second-best setting only"
    assert len(neighbours.todo) == 2 * 3


def test_failed_runs_count_with_the_floor(small: Path) -> None:
    analysis = analysed(read_plan(small, WORDS), LEVEL, diverged=(1,))
    assert set(analysis.tables["selection"]["setting"]) == {2}
    of_setting = analysis.tables["sensitivity"].set_index(["optimizer", "setting"]).loc[("sgd", 1)]
    assert of_setting["learnt_rate"] == 0
    assert of_setting["mean"] == pytest.approx(0.5005 * 2 / 5)


def test_a_rate_near_the_end_of_its_range_is_flagged(small: Path) -> None:
    lr = read_plan(small, WORDS).settings["sgd"][1]["lr"]
    ends = {"low": (lr * 0.99, lr * 2), "high": (lr / 2, lr * 1.01)}
    for end, (low, high) in ends.items():
        each = Range(low=low, high=high)
        assert (each.place(lr) < 0.05, each.place(lr) > 0.95) == (end == "low", end == "high")
    plan = read_plan("compare-cartpole", ["track=all tuned", 'agents=["actor-critic"]'])
    near = max(range(16), key=lambda k: plan.settings["sgd"][k]["lr"])
    analysis = analysed(plan, {k: 0.5 if k == near else 0.2 for k in range(16)})
    assert plan.spaces["sgd"]["lr"].place(plan.settings["sgd"][near]["lr"]) > 0.95
    assert set(analysis.tables["selection"]["edge"]) == {"high"}
    assert "is at the upper end of its range" in api_words(analysis)


def api_words(analysis: Analysis) -> str:
    from pgkit.compare.report import prose

    return "\n".join(prose.remarks(analysis, CASE))


def test_renaming_arms_changes_no_number(small: Path) -> None:
    names = 'optimizers=["sgd", {name="adam", beta2=0.9, label="another"}]'
    ours, theirs = (analysed(read_plan(small, [*WORDS, *more]), LEVEL) for more in ((), (names,)))
    for name in schemas(all_tuned=True):
        renamed = theirs.tables[name].replace("another", "fast adam")
        pd.testing.assert_frame_equal(renamed, ours.tables[name])


def test_one_setting_for_all_environments_costs_what_phi_says(small: Path) -> None:
    head, _, case = small.read_text(encoding="utf-8").partition("[environments.CartPole-v1]")
    scores = case.partition("[environments")[0]
    names = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
    small.write_text(head + "".join(f"[environments.{name}]{scores}" for name in names), encoding="utf-8")
    plan = read_plan(small, [*WORDS[:2], 'agents=["reinforce"]'])
    stored, scale = pd.DataFrame(columns=[*Run._fields]), dict.fromkeys(names, SCALES[CASE[0]])
    while todo := stages(plan, scale, stored)[-1].todo:
        level = {name: LEVEL if name == names[0] else {**LEVEL, 1: 0.3} for name in names}  # 1 is best, or 2
        rows = pd.concat(
            [stored_rows([one for one in todo if one.environment == name], of_env) for name, of_env in level.items()]
        )
        stored = pd.concat([stored, rows], ignore_index=True) if len(stored) else rows.reset_index(drop=True)
    baselines = pd.concat([BASELINES.assign(environment=name) for name in names])
    across = analyse(plan, scale, baselines, stored, {"versions": {}, "sessions": []}).tables["across"]
    whole = across[across["without"] == ""].set_index("optimizer")["phi"]
    np.testing.assert_allclose(whole, (0.5 + 0.4 + 0.4) / 3 - 0.4, atol=1e-9)
    without = across[across["without"] == names[0]].set_index("optimizer")["phi"]
    np.testing.assert_allclose(without, 0, atol=1e-9)


def test_expected_best_is_that_of_all_settings(small: Path) -> None:
    table = analysed(read_plan(small, WORDS), LEVEL).tables["expected_best"]
    of_arm = table[table["optimizer"] == "sgd"].set_index("k")["value"]
    assert list(of_arm.index) == [1, 2, 3, 4]
    assert of_arm[1] == pytest.approx(0.3 + 0.0005)
    assert of_arm[4] == pytest.approx(0.5 + 0.0005)


# --- run ---


def test_tables_are_those_of_the_track(done: Path) -> None:
    analysis = api.load_analysis(done)
    check_tables(analysis.tables, schemas(all_tuned=True))
    assert set(analysis.tables) == set(schemas(all_tuned=True))
    assert "rates" not in analysis.tables
    assert analysis.facts["missing"] == 0
    runs = analysis.tables["runs"]
    assert runs.groupby("stage").size()["tuning"] == 2 * 4 * 2
    settings = analysis.tables["settings"]
    assert settings.groupby("optimizer").size().to_dict() == {"sgd": 4, "fast adam": 4 * 3}
    selected = analysis.tables["selection"].set_index("optimizer").loc["fast adam"]
    chosen = settings[(settings["optimizer"] == "fast adam") & (settings["setting"] == selected["setting"])]
    text = ", ".join(f"{row.hyperparameter} = {row.value:g}" for row in chosen.itertuples())
    assert selected["hyperparameters"] == text


def test_a_run_has_the_bits_of_a_run_alone(done: Path) -> None:
    stored, plan = Store(done).load(), Store(done).plan()
    row = stored[stored["optimizer"] == "fast adam"].iloc[3]
    keys = row[list(Run._fields)]
    one = Run(*keys)._replace(lr=float(row["lr"]), seed=int(row["seed"]), setting=int(row["setting"]))
    (alone,) = run_batch([plan.train_config(one)])
    for name in ("returns", "final", "greedy", "at"):
        np.testing.assert_array_equal(row[name], np.array(alone[name]))


def test_what_is_lost_is_run_again_with_the_same_bytes(done: Path) -> None:
    before, plan = tables(done), done.parent / "small.toml"
    for batch in sorted((done / "chunks").iterdir())[::2]:
        batch.unlink()
    api.compare(plan, WORDS, done, workers=1, figures=False)
    assert tables(done) == before


def test_tracks_are_never_mixed(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done.parent)
    before = tables(done)
    result = CliRunner().invoke(app, ["compare", "small.toml", 'agents=["actor-critic"]', "--out", "c"])
    assert result.exit_code == 2
    assert "holds the results of another plan (they differ in 'track')" in result.stderr
    assert tables(done) == before


def test_the_report_says_what_was_tuned(done: Path) -> None:
    html = (done / "report.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)).split())
    for said in (
        "track: all tuned",
        "4 settings each, quasi-random points of the space of all tuned hyperparameters",
        "the best setting of each was then trained again",
        "all tuned: 4 quasi-random settings for each arm",
        "tuned: fast adam lr 0.001 to 0.1 (log-uniform); beta1 0 to 0.999 (1 - x log-uniform)",
        "The selected settings, in full",
        "and hyperparameters without a range (listed with each optimizer)",
        "Held: name = adam, beta2 = 0.9, weight_decay = 0.0",
        "its tuned hyperparameters and seed; all else is equal",
        "Tuning cost: sgd 8 runs",
        "settings: 4, not 32 as in the standard tier",
    ):
        assert said in text, said
    for wrong in ("documented defaults", "declared learning rates", "How much the learning rate matters", "width"):
        assert wrong not in text, wrong
    figures = {path.stem.removeprefix("cartpole-v1-actor-critic-") for path in (done / "figures").iterdir()}
    assert "settings" in figures
    assert "sensitivity" not in figures
    summary = (done / "summary.md").read_text(encoding="utf-8")
    assert "- Tuned: sgd: lr 0.001 to 0.1 (log-uniform)" in summary


def test_tensorboard_has_a_run_for_each_setting(done: Path) -> None:
    names = {path.parent.name for path in (done / "tensorboard" / "tuning").rglob("events.*")}
    assert names == {f"{arm}-setting{k}" for arm in ("sgd", "fast adam") for k in range(4)}
    _, groups = hparams_tab(done / "tensorboard" / "tuning" / "cartpole-v1-actor-critic")
    given = groups["fast adam-setting2"].hparams
    assert given["beta1"].number_value == pytest.approx(Store(done).plan().settings["fast adam"][2]["beta1"])
