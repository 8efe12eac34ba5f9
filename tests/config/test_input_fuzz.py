"""Whatever stands in a configuration or on the command line: one line of error or none, and nothing half written."""

import copy
import datetime
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import tomli_w
from click.testing import Result
from hypothesis import HealthCheck, Phase, given, settings
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare import api
from pgkit.compare.execution.forecast import Forecast
from pgkit.config import names
from pgkit.config.load import parse_config, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.training import train as train_module

SHIPPED = {name: tomllib.loads(file.read_text(encoding="utf-8")) for name, file in names.shipped_configs().items()}
TRAIN = {name: table for name, table in SHIPPED.items() if "environments" not in table}
COMPARE = {name: table for name, table in SHIPPED.items() if "environments" in table}

# --- what may stand there ---

NASTY = r"""
.. ../x /etc a/b ß 名 🂡 nan inf none null 1e-3 [ ] { " ' \ # = . true -1 0x __main__ os.path:join : a:b cuda:99
CartPole-v1
CartPole-v1:x pgkit.errors torch.optim:SGD torch.optim:Adam.x ..:x %s ${HOME} {a=1} 99999999999999999999
""".split()  # noqa: SIM905 - a list of them would be thrice as long
NASTY += ["", " ", "\x00", "\x1b[31m", "\n", "a" * 300, "[" * 3000, "1" * 5000, ".".join("a" * 3000)]
NUMBERS = [0, 1, -1, 0.5, 3, 64, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.0, 1e-320, 1e308, -1e308]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
WORDS = sorted({key for table in SHIPPED.values() for key in table} | set(TrainConfig.model_fields))
WORDS += ["lr", "id", "kind", "hidden", "gamma", "schedule", "critic", "groups", "weight_decay", "max_grad_norm"]
WORDS += ["kwargs", "timeout", "train", "label"]

scalars = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NASTY),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["adam", "sgd", "rmsprop", "reinforce", "actor-critic", "linear", "cosine", "kl", "tanh", "async"]),
    st.just(datetime.datetime(1979, 5, 27, 7, 32)),
    st.just(datetime.time(7, 32)),
)
keys = st.one_of(st.sampled_from(WORDS), st.sampled_from(NASTY), st.text(max_size=6))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=5,
)


def paths(table: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, key))


def put(table: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(table.get(part), dict):
            table[part] = {}
        table = table[part]
    table[path[-1]] = value


@st.composite
def tables(draw: st.DrawFn, shipped: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A shipped configuration in which some things are not what they should be."""
    table = copy.deepcopy(draw(st.sampled_from(list(shipped.values()))))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(sorted(paths(table)) or [("steps",)]))
        match draw(st.sampled_from(["set", "add", "delete", "move", "top"])):
            case "set":
                put(table, path, draw(values))
            case "add":
                put(table, (*path[:-1], draw(keys)), draw(values))
            case "top":
                put(table, (draw(keys),), draw(values))
            case "delete" | "move" as what:
                inner = table
                for part in path[:-1]:
                    inner = inner[part]
                value = inner.pop(path[-1])
                if what == "move":
                    put(table, (draw(st.sampled_from(WORDS)), path[-1]), value)
    return table


@st.composite
def texts(draw: st.DrawFn, shipped: dict[str, dict[str, Any]]) -> str:
    """The same as TOML, in which a few characters are not what they should be either."""
    text = tomli_w.dumps(draw(tables(shipped)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["insert", "cut", "double"])):
            case "insert":
                text = text[:at] + draw(st.one_of(st.sampled_from(NASTY), st.text(max_size=3))) + text[at:]
            case "cut":
                text = text[:at] + text[at + draw(st.integers(1, 5)) :]
            case "double":
                line = text[:at].rpartition("\n")[2] + text[at:].partition("\n")[0]
                text = f"{text}\n{line}\n"
    return text


dotted = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(NASTY), st.text(max_size=4)), min_size=1, max_size=4
)
written = st.one_of(
    values.map(lambda value: tomli_w.dumps({"v": value})[4:].strip()), st.sampled_from(NASTY), st.text()
)
overrides = st.lists(
    st.one_of(
        st.tuples(dotted.map(".".join), written).map("=".join),
        st.tuples(st.sampled_from(WORDS), written).map("=".join),
        st.sampled_from(["steps=1=2", "=", "==", "a", "optimizer.lr", "a.b.c.d.e.f=1", '"a.b"=1', "steps=1\nseed=2"]),
        st.text(max_size=10),
    ),
    max_size=3,
)

# --- what must hold ---


class Accepted(Exception):
    """The configuration is sound: training would begin."""


def accept(configs: list[TrainConfig], *_: Any, **__: Any) -> None:
    """In the place of training, which would take for ever: what was accepted can be written and read again."""
    text = to_toml(configs[0])
    assert to_toml(parse_config(tomllib.loads(text))) == text
    raise Accepted


@contextmanager
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new working directory."""
    directory = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield directory


def check(result: Result, directory: Path) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit | Accepted), result.exc_info
    if not isinstance(result.exception, Accepted) and result.exit_code != 0:
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stderr[:-1].isprintable()
    assert [path.name for path in directory.rglob("*")] == ["fuzz.toml"]


FUZZ = settings(
    max_examples=200,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes, and the text says what is wrong as it is
)


@FUZZ
@given(texts(TRAIN), overrides)
def test_train(tmp_path_factory: pytest.TempPathFactory, text: str, words: list[str]) -> None:
    with place(tmp_path_factory) as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "train", accept)
        (directory / "fuzz.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
        check(CliRunner().invoke(app, ["train", "--", "fuzz.toml", *words]), directory)


@FUZZ
@given(texts(COMPARE), overrides)
def test_compare(tmp_path_factory: pytest.TempPathFactory, text: str, words: list[str]) -> None:
    cost = Forecast([{"stage": "all", "runs": 1, "minutes_from": 0.1, "minutes_to": 0.2}], 2, 1.0)
    with place(tmp_path_factory) as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "forecast", lambda plan, workers: cost)  # it trains, to measure how long that takes
        (directory / "fuzz.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
        check(CliRunner().invoke(app, ["compare", "--dry-run", "--", "fuzz.toml", *words]), directory)


TINY = {
    "steps": 40,
    "envs_per_member": 2,
    "seed": 3,
    "seeds": 1,
    "policy": {"hidden": [4]},
    "evaluation": {"points": 1, "episodes": 1, "final_episodes": 2},
}


@settings(FUZZ, max_examples=30)
@given(tables(TRAIN), st.sampled_from([None, 1, 5]))
def test_a_run_is_whole_or_not_there(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], rollout_steps: int | None
) -> None:
    """What is accepted is really trained, briefly: in CartPole, or whatever is left of it."""
    table = table | TINY | ({} if rollout_steps is None else {"rollout_steps": rollout_steps})
    env = table.get("env")
    if isinstance(env, dict):
        table["env"] = env | {"id": "CartPole-v1", "max_episode_steps": 10}
    with place(tmp_path_factory) as directory:
        (directory / "fuzz.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
        result = CliRunner().invoke(app, ["train", "fuzz.toml", "--out", "run"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code in (0, 1, 2)
        left = {path.name for path in directory.iterdir()}
        if result.exit_code == 2:
            assert left == {"fuzz.toml"}, result.stderr
        else:
            assert left == {"fuzz.toml", "run"}
            expected = {
                "config.toml",
                "optimizer.toml",
                "provenance.json",
                "metrics.parquet",
                "checkpoints",
                "result.json",
            }
            assert expected <= {path.name for path in (directory / "run").iterdir()}
