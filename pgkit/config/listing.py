"""The tables and texts of ``pgkit list``."""

import inspect
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pgkit import envs, optim, pretrained
from pgkit.config.names import AGENTS, is_comparison, shipped_configs
from pgkit.config.registry import agent
from pgkit.envs import Environments
from pgkit.envs.speed import BATCH, AvailableEnv, list_available_envs, steps_per_second
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.optim.around import AROUND, PARTS
from pgkit.optim.registry import OptimizerSpec, part_spec

Row = dict[str, str]

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def overview(topic: str, measure: bool = False) -> list[Row]:
    """Return one row for each entry of ``topic``: "agents", "optimizers", "configs", "envs" or "pretrained".

    Args:
        topic: what is listed.
        measure: the speed of all environments, not only of pgkit's own.

    Raises:
        PgkitError: there is no such topic, or nothing to measure.
    """
    rows = _topic(topic)[0]
    if not measure:
        return rows()
    if topic != "envs":
        raise PgkitError(f"--measure is for environments: pgkit list envs --measure, not {topic}")
    return _env_rows(measure)


def describe(topic: str, name: str) -> str:
    """Return all about one entry of ``topic`` as text.

    Raises:
        PgkitError: there is no such topic, or no entry of that name.
    """
    return _topic(topic)[1](name)


def field_type(field: FieldInfo) -> str:
    """Return type and range of a setting in words: ``integer >= 1``, ``"sync" or "async"``, ``list of integers``."""
    return _type_text(field.annotation, field.metadata)


def inner_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a table, also of one that may be missing; None for other settings."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    types = get_args(field.annotation) if is_union else (field.annotation,)
    return next((each for each in types if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    arguments = [argument for argument in get_args(annotation) if argument not in (type(None), Ellipsis)]
    if origin is Annotated:
        return _type_text(arguments[0], [*_metadata_of(arguments[1:]), *metadata])
    if origin is Literal:
        return " or ".join(map(format_value, arguments))
    if origin in (Union, UnionType):
        return " or ".join(_type_text(argument, metadata) for argument in arguments)
    if origin is tuple:
        return f"list of {_plural(_type_text(arguments[0]))}"
    words = _TYPE_WORDS.get(origin or annotation, "table")
    return " ".join([words, *_bounds(metadata)]) if words in ("integer", "number") else words


_TYPE_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


def _plural(words: str) -> str:
    first, separator, rest = words.partition(" ")
    return f"{first}s{separator}{rest}" if first in ("integer", "number", "text", "table") else words


def _metadata_of(annotations: Sequence[Any]) -> list[Any]:
    return [item for one in annotations for item in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _bounds(metadata: Sequence[Any]) -> list[str]:
    """Return the bounds in pydantic's metadata, such as ``Ge(ge=0)``, but not those that only catch typing mistakes."""
    named = [(limit, name) for limit in metadata for name in _SIGNS if hasattr(limit, name)]
    return [f"{_SIGNS[name]} {getattr(limit, name):g}" for limit, name in named if getattr(limit, name) < 1e6]


def _topic(topic: str) -> tuple[Callable[[], list[Row]], Callable[[str], str]]:
    topics = {
        "agents": (_agent_rows, _agent_text),
        "optimizers": (_optimizer_rows, _optimizer_text),
        "configs": (_config_rows, _config_text),
        "envs": (_env_rows, _env_text),
        "pretrained": (_pretrained_rows, _pretrained_text),
    }
    if topic not in topics:
        raise PgkitError(unknown_name("topic", topic, topics))
    return topics[topic]


def _agent_rows() -> list[Row]:
    return [
        {"name": name, "collects": agent(name).collects, "what": _doc(agent(name)).partition("\n")[0]}
        for name in AGENTS
    ]


def _agent_text(name: str) -> str:
    module = agent(name)
    lines = [_doc(module), "", f"Collects {module.collects}. Settings (agent.*), with defaults:"]
    for key, field in module.Config.model_fields.items():
        about = f"{field_type(field)}: {field.description or ''}".removesuffix(": ")
        lines.append(f"  {key} = {format_value(field.default)}  ({about})")
    return "\n".join(lines)


def _doc(module: Any) -> str:
    return inspect.getdoc(module) or ""


def _config_rows() -> list[Row]:
    rows = []
    for name, file in shipped_configs().items():
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if is_comparison(table):
            command = "compare"
            arms = [arm if isinstance(arm, str) else arm.get("label", arm["name"]) for arm in table["optimizers"]]
            columns = (table["environments"], table["agents"], arms)
        else:
            command = "train"
            columns = ([table["env"]["id"]], [table["agent"]["name"]], [table["optimizer"]["name"]])
        environment, agents, optimizers = map(", ".join, columns)
        rows.append(
            {"name": name, "command": command, "environment": environment, "agent": agents, "optimizer": optimizers}
        )
    return rows


def _config_text(name: str) -> str:
    configs = shipped_configs()
    if name not in configs:
        raise PgkitError(unknown_name("config", name, configs))
    return configs[name].read_text(encoding="utf-8").rstrip()


def _optimizer_rows() -> list[Row]:
    """Optimizers, and then what may be around any of them, marked with a plus."""
    rows = [_optimizer_row(optim.spec(name)) for name in optim.list_optimizers()]
    return rows + [_optimizer_row(part_spec(key)) | {"name": f"+ {key}"} for key in PARTS]


def _optimizer_row(spec: OptimizerSpec) -> Row:
    formula = " ".join(spec.formula.partition("\n\n")[0].split())
    return {"name": spec.name, "formula": formula, "defaults": _assignments(spec.defaults), "source": spec.source}


def _optimizer_text(name: str) -> str:
    if name in PARTS:
        part = part_spec(name)
        keys = f"Around any optimizer (optimizer.*), with defaults:\n  {_assignments(part.defaults)}"
        return "\n\n".join([part.formula.partition("\n\n>>>")[0], f"Source: {part.source}", keys])
    names = optim.list_optimizers()
    if name not in names and ":" not in name:
        raise PgkitError(unknown_name("optimizer", name, [*names, *PARTS]))
    spec = optim.spec(name)
    about = [spec.formula, f"Source: {spec.source}" if spec.source else ""]  # classes of others may state neither
    settings = (
        f"Hyperparameters (optimizer.*), with defaults:\n  {_assignments(spec.defaults) or 'none'}\n"
        f"With any optimizer:\n  {_assignments(AROUND)}, schedule, critic, groups"
    )
    return "\n\n".join([*filter(None, about), settings])


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _env_rows(measure: bool = False) -> list[Row]:
    return [_env_row(env) for env in list_available_envs(measure)]


def _env_row(env: AvailableEnv) -> Row:
    speed = "" if env.steps_per_second is None else f"{_rounded(env.steps_per_second):,}"
    return {"name": env.name, "backend": env.backend, "steps per second": f"{speed:>12}"}


def _rounded(number: float) -> int:
    """To two digits: the measure is short."""
    return int(float(f"{number:.1e}"))


def _env_text(name: str) -> str:
    with _few_envs(name) as env:
        info = env.info
        limit = info.max_episode_steps or "none"
        return (
            f"{info.name}\n  observations: {info.obs_dim} numbers\n  actions: {info.action_space}\n"
            f"  time limit: {limit}\n  backend: {info.backend}\n"
            f"  steps per second: {_rounded(steps_per_second(env)):,} ({info.num_envs} at once, one core)"
        )


def _pretrained_rows() -> list[Row]:
    rows = [(name, pretrained.about(name)) for name in pretrained.names()]
    return [{"name": name, **{key: about[key] for key in ("environment", "return")}} for name, about in rows]


def _pretrained_text(name: str) -> str:
    return "\n".join([name, *(f"  {key}: {text}" for key, text in pretrained.about(name).items())])


@contextmanager
def _few_envs(name: str) -> Iterator[Environments]:
    is_compiled = envs.resolve_backend(name, {}, "auto") == "pgkit"
    env = envs.make_envs(name, BATCH if is_compiled else 1)
    try:
        yield env
    finally:
        env.close()
