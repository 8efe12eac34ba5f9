"""Overrides in the words of Stable-Baselines3, CleanRL and torch, or in short forms, as pgkit has them."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pgkit.config import names, registry
from pgkit.errors import SYNONYMS, PgkitError, unknown_name
from pgkit.optim.registry import canonical_name

KeyPath = tuple[str, ...]
"""The parts of a dotted key."""

_NO_REPLAY = "rollout_steps and envs_per_member: pgkit's agents are on-policy, without a replay buffer"

HINTS: Mapping[str, str] = {
    "anneal_lr": "optimizer.schedule.lr=linear",
    "batch_size": "minibatches, the number of parts that rollout_steps * envs_per_member samples are cut into",
    "minibatch_size": "minibatches, the number of parts that rollout_steps * envs_per_member samples are cut into",
    "clip_vloss": "agent.clip_range_vf, how far a value may go",
    "eval_freq": "evaluation.points, the number of evaluations",
    "save_freq": "checkpoint_points, the number of checkpoints",
    "use_rms_prop": "optimizer.name=rmsprop",
    "rms_prop_eps": "optimizer.eps",
    "optimizer_class": "optimizer.name",
    "trained_agent": "init=runs/NAME, the run whose parameters training begins with",
    "n_minibatches": "minibatches, the number of parts that rollout_steps * envs_per_member samples are cut into",
    "policy_kwargs": "policy.hidden, policy.activation and other keys of policy",
    "render": "pgkit evaluate RUN --render, after training",
    "render_mode": "pgkit evaluate RUN --render, after training",
    "capture_video": "pgkit evaluate RUN --video FILE.mp4, after training",
    "verbose": "--quiet to print less",
    "progress_bar": "--quiet to show none",
    "resume": "pgkit resume RUN",
    "buffer_size": _NO_REPLAY,
    "learning_starts": _NO_REPLAY,
    "exploration_fraction": _NO_REPLAY,
    "tensorboard_log": "--out; every run has a TensorBoard log",
    "report_to": 'logger, such as logger=["tensorboard", "wandb"]',
    "wandb_project_name": "the variable WANDB_PROJECT, with logger=wandb",
    "cuda": "device=cuda",
    "gpu": "device=cuda",
}
"""Keys of other libraries that have no counterpart of the same meaning, and what to use instead."""

SHORT = {"env": "id", "agent": "name", "optimizer": "name", "init": "run"}
"""Tables for which a text is short for one of their keys."""

FLAGS = ("--overwrite", "--quiet", "--debug-numerics", "--dry-run", "--no-figures")
"""Options of ``pgkit train`` and ``pgkit compare`` that have no value, for messages."""

OPTIONS = ("--out", "--workers", "--executor", "--ray-address", *FLAGS)
"""All of their options."""


def canonical(path: KeyPath, value: Any) -> tuple[KeyPath, Any]:
    """Return the key and the value that pgkit has for an override.

    >>> canonical(("learning_rate",), 0.1)
    (('optimizer', 'lr'), 0.1)
    >>> canonical(("env",), "Pendulum-v1")
    (('env', 'id'), 'Pendulum-v1')

    Raises:
        PgkitError: a key of another library that has no counterpart; the message names what to use instead.
    """
    if len(path) == 1:
        if path[0] in HINTS:
            raise PgkitError(f"unknown key {path[0]!r}; use {HINTS[path[0]]}")
        if path[0] == "policy" and isinstance(value, str):
            raise PgkitError(
                f"policy={value} is not one setting; use policy.network=mlp, policy.hidden=[64,64] and so on"
            )
        path = tuple(SYNONYMS.get(path[0], path[0]).split("."))
    if len(path) == 1 and path[0] in SHORT and isinstance(value, str) and value != "keep":
        path = (path[0], SHORT[path[0]])
    if path == ("agent", "name"):
        return path, agent_name(value)
    if path[0] == "optimizer" and path[-1] == "name":
        return path, canonical_name(value)
    return path, value


def agent_name(name: Any) -> Any:
    """Return pgkit's name of an agent, unless there is a module of that name."""
    if not isinstance(name, str) or registry.module_exists(name):
        return name
    return names.agent_name(name)


def from_options(words: Sequence[Any]) -> list[Any]:
    """Return ``["seed=3"]`` for ``["--seed", "3"]`` or ``["--seed=3"]``; other words stand as they are.

    Raises:
        PgkitError: an option without a value.
    """
    overrides: list[Any] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not isinstance(word, str) or not word.startswith("-"):
            overrides.append(word)
            continue
        option, separator, value = word.partition("=")
        if not separator:
            if not word.startswith("--") or not rest or not isinstance(rest[0], str) or "=" in rest[0]:
                raise PgkitError(_not_an_option(word))
            value = rest.pop(0)
        overrides.append(f"{option.lstrip('-').replace('-', '_')}={value}")
    return overrides


def _not_an_option(word: str) -> str:
    """Say that a word is a misspelt option, or a key without its value."""
    key = word.lstrip("-").replace("-", "_")
    if key in HINTS:
        return f"unknown option {word!r}; use {HINTS[key]}"
    if not word.startswith("--") or get_close_matches(word, OPTIONS, n=1):
        return unknown_name("option", word, OPTIONS, or_else="--KEY VALUE")
    return f"{word} has no value: {word} VALUE or {key}=VALUE (options without a value: {', '.join(FLAGS)})"
