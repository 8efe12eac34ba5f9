"""``pgkit plot``: what is drawn is what the runs have logged, and files are those that papers take."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import pgkit
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import pgkit as toolkit
from pgkit.config.load import read_config
from pgkit.logging import read_metrics
from pgkit.plots.learning import figure_of_runs, learning_curves
from pgkit.plots.runs import labels_of, read_curves
from pgkit.plots.style import arm_styles

TINY = ["steps=600", "envs_per_member=2", "policy.hidden=[8]", "evaluation={points=3,episodes=2,final_episodes=3}"]
RUNS = {
    "slow": ["cartpole-actor-critic", "seeds=3"],
    "fast": ["cartpole-actor-critic", "seeds=3", "optimizer=sgd", "optimizer.lr=0.1"],
    "one": ["cartpole-actor-critic", "evaluation={points=0,final_episodes=3}"],
    "failing": [
        "cartpole-actor-critic",
        "seeds=2",
        "optimizer=sgd",
        "optimizer.lr=1e38",
        "optimizer.max_grad_norm=1e38",
    ],
    "pendulum": ["pendulum-ppo", "seeds=2", "rollout_steps=32"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with tiny runs."""
    directory = tmp_path_factory.mktemp("plots")
    for name, (config, *words) in RUNS.items():
        toolkit.train(read_config(config, [*TINY, *words])[0], directory / "runs" / name)
    return directory


@pytest.fixture(autouse=True)
def place(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(runs)
    return runs


def medians(axes: Axes) -> dict[str, np.ndarray]:
    """Points ``(K, 2)`` of the named lines."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines}


def test_seeds_and_their_median_are_drawn_where_they_were_logged() -> None:
    axes = learning_curves(["slow", "runs/fast"])
    assert list(medians(axes)) == ["adam, lr=0.003", "sgd, lr=0.1"]
    rows = read_metrics(Path("runs/slow/metrics.parquet"))
    rows = rows[rows["tag"] == "eval/return_mean"].drop_duplicates(["member", "step"], keep="last")
    (thin, _) = (each for each in axes.collections if isinstance(each, LineCollection))
    for segment, (_, seed) in zip(thin.get_segments(), rows.groupby("member"), strict=True):
        np.testing.assert_array_equal(segment, seed[["step", "value"]])
    ends = rows[rows["step"] == rows.groupby("member")["step"].transform("max")]["value"]
    first = rows[rows["step"] == 0]["value"]
    drawn = medians(axes)["adam, lr=0.003"]
    assert len(set(ends)) > 1
    np.testing.assert_allclose(drawn[[0, -1], 1], [np.median(first), np.median(ends)])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "return on CartPole-v1")


def test_axes_of_ones_own_are_drawn_on_and_returned() -> None:
    axes = Figure().add_subplot()
    assert learning_curves(["slow"], "entropy", axes=axes) is axes
    assert axes.get_ylabel() == "policy/entropy on CartPole-v1"
    assert axes.get_legend() is None


def test_failed_seeds_count_as_the_lowest_return_and_are_counted() -> None:
    curves = read_curves("failing")
    assert curves.failed == 2
    lowest = min(values.min() for _, values in curves.seeds)
    assert (curves.values[:, -1] == lowest).all()
    assert curves.steps[-1] == 600
    assert any("(2 of 2 failed)" in label for label in medians(learning_curves(["slow", "failing"])))


def test_a_run_that_is_not_finished_ends_with_its_shortest_seed(tmp_path: Path) -> None:
    shutil.copytree("runs/slow", tmp_path / "open")
    (tmp_path / "open" / "result.json").unlink()
    curves = read_curves(tmp_path / "open")
    assert curves.steps[-1] == min(steps[-1] for steps, _ in curves.seeds)


def test_environments_have_a_panel_each() -> None:
    figure = figure_of_runs(["slow", "pendulum", "fast"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["return on CartPole-v1", "return on Pendulum-v1"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]


def test_labels_say_what_differs() -> None:
    cases: list[tuple[Sequence[list[str]], list[str]]] = [
        ([[], ["optimizer.lr=0.01"]], ["lr=0.003", "lr=0.01"]),
        ([["agent.gamma=0.9"], ["seeds=3"]], ["gamma=0.9", "gamma=0.99"]),
        ([["agent=ppo"], []], ["ppo", "actor-critic"]),
        ([[], ["policy.hidden=[8]"]], ["hidden=(64, 64)", "hidden=(8,)"]),
        ([[], ["optimizer.critic.lr=0.1"]], ["critic lr=0.01", "critic lr=0.1"]),
        ([[], ["seed=1"]], ["0", "1"]),  # the same but for seeds: names of the runs
    ]
    for overrides, expected in cases:
        configs = [read_config("cartpole-actor-critic", words)[0] for words in overrides]
        assert labels_of(configs, list("01")) == expected


def test_lines_differ_in_grey_by_dashes_and_neighbours_by_brightness() -> None:
    looks = list(arm_styles([str(k) for k in range(5)]).values())
    grey = [np.dot(to_rgb(look.color), [0.299, 0.587, 0.114]) for look in looks]
    assert len({look.dashes for look in looks}) == 5
    assert np.abs(np.diff(grey)).min() > 0.02


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".pdf", b"%PDF"), (".png", b"\x89PNG")])
def test_files_are_written_the_same_each_time(suffix: str, start: bytes, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        done = pgkit(f"plot slow fast --style two-column --out {tmp_path / name}{suffix}")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "median over seeds, with the band from 10 % to 90 %" in done.stdout
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]


def test_a_column_of_a_paper_has_its_width_and_small_text(tmp_path: Path) -> None:
    pgkit(f"plot slow fast --style two-column --out {tmp_path}/a.svg --labels Adam,SGD")
    text = (tmp_path / "a.svg").read_text()
    width = re.search(r'width="([\d.]+)pt"', text)
    assert width is not None
    assert float(width[1]) == pytest.approx(3.3 * 72, abs=0.1)
    assert {">Adam<", ">SGD<"} <= set(re.findall(r">\w+<", text))
    assert set(re.findall(r"font: ([\d.]+)px|font-size: ([\d.]+)px", text)) <= {("7", ""), ("7.5", ""), ("", "7")}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("slwo", "unknown run 'slwo', did you mean 'slow'?"),
        ("slow --metric retrun", "unknown metric 'retrun', did you mean 'return'?"),
        ("slow --metric lr", "metric 'lr' may be optimizer/critic/lr or optimizer/main/lr"),
        ("slow --out a.jpg", "a figure is an .svg, .pdf or .png file, got a.jpg"),
        ("slow fast --labels x", "labels must be one for each of 2 runs, got 1"),
        ("slow fast --labels x,x", "labels of runs in one environment must differ, got x, x"),
        ("one", "has logged eval/return_mean only once (0 evaluations while training, see evaluation.points)"),
        ("slow --style wide", "two-column"),
        ("", "missing argument 'RUN...'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(words: str, fragment: str, place: Path) -> None:
    before = sorted(place.iterdir())
    done = pgkit(f"plot {words}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert fragment in done.stderr
    assert sorted(place.iterdir()) == before


def test_runs_of_several_environments_need_axes_each() -> None:
    with pytest.raises(toolkit.PgkitError, match="figure_of_runs"):
        learning_curves(["slow", "pendulum"])
