"""Mistakes of the user, each reported in one line."""

import json
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


class PgkitError(ValueError):
    """A mistake of the user. The message is one line: what is wrong, where, and what is allowed instead.

    Every function of pgkit raises it for wrong settings, names and paths; the command line prints the message and
    leaves with ``exit_code``.

    >>> import pgkit
    >>> pgkit.load_config("cartpole-actor-critic", ["steps=many"])
    Traceback (most recent call last):
        ...
    pgkit.errors.PgkitError: cartpole-actor-critic: steps must be a whole number, got "many"

    Attributes:
        exit_code: the exit code of the command line.
    """

    exit_code = 2


class PgkitWarning(UserWarning):
    """Something that was done otherwise than one might think; the message is one line.

    The command line prints it on standard error, with ``--quiet``, too.
    """


SYNONYMS: Mapping[str, str] = {
    "algo": "agent.name",
    "env_id": "env.id",
    "env_name": "env.id",
    "gym_id": "env.id",
    "exp_name": "name",
    "run_name": "name",
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "epsilon": "optimizer.eps",
    "max_grad_norm": "optimizer.max_grad_norm",
    "weight_decay": "optimizer.weight_decay",
    "total_timesteps": "steps",
    "n_timesteps": "steps",
    "num_timesteps": "steps",
    "max_timesteps": "steps",
    "num_env_steps": "steps",
    "n_seeds": "seeds",
    "num_seeds": "seeds",
    "n_steps": "rollout_steps",
    "num_steps": "rollout_steps",
    "n_envs": "envs_per_member",
    "num_envs": "envs_per_member",
    "n_epochs": "epochs",
    "update_epochs": "epochs",
    "num_minibatches": "minibatches",
    "clip_range": "agent.clip_range",
    "clip_coef": "agent.clip_range",
    "clip_range_vf": "agent.clip_range_vf",
    "gamma": "agent.gamma",
    "gae_lambda": "agent.lam",
    "lam": "agent.lam",
    "ent_coef": "agent.entropy_coef",
    "entropy_coef": "agent.entropy_coef",
    "vf_coef": "agent.value_coef",
    "vf_coeff": "agent.value_coef",
    "value_coef": "agent.value_coef",
    "normalize_advantage": "agent.normalize_advantage",
    "norm_adv": "agent.normalize_advantage",
    "hidden_sizes": "policy.hidden",
    "net_arch": "policy.hidden",
    "activation_fn": "policy.activation",
    "ortho_init": "policy.orthogonal",
    "log_std_init": "policy.log_std",
    "n_eval_episodes": "evaluation.episodes",
    "max_steps": "env.max_episode_steps",
}
"""Keys of Stable-Baselines3, CleanRL and torch that mean the same as one of pgkit's."""

_TYPES = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_short": "a list with at least one entry",
    "dict_type": "a table",
    "model_type": "a table",
}


def describe_exception(error: BaseException) -> str:
    """Write an exception as one line: its type and its message, if it has one that can be shown.

    >>> describe_exception(ValueError("too\\nlong"))
    'ValueError: too long'
    """
    try:
        message = " ".join(str(error).split())
    except Exception:  # a user's exception, whose own text may raise anything
        message = "(its message cannot be shown)"
    return f"{type(error).__name__}: {message}"


def format_error(error: Exception) -> str:
    """Write an error and its notes as one line.

    Other errors than :class:`PgkitError` begin with the name of their type. Unprintable characters are escaped, so that
    a message cannot steer the terminal.
    """
    what = str(error) if isinstance(error, PgkitError) else describe_exception(error)
    text = " ".join("; ".join([what, *getattr(error, "__notes__", [])]).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explain_validation_error(error: "ValidationError", model: "type[BaseModel]", prefix: str = "") -> str:
    """Write the mistakes that pydantic reports as one line.

    Unknown keys come first; a key that is missing because it is misspelt is not told twice.

    Args:
        error: what pydantic raised.
        model: the model that was validated.
        prefix: what stands before each key in the user's file, such as ``"agent."``.
    """
    details = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    texts = [_explain_one(detail, model, prefix) for detail in details]
    meant = [text for text in texts if text.startswith("unknown key")]
    missing = " is missing"
    mistakes = [
        text
        for text in texts
        if not (text.endswith(missing) and any(f"did you mean {text[: -len(missing)]!r}" in one for one in meant))
    ]
    return "; ".join(dict.fromkeys(mistakes))


def _explain_one(detail: "ErrorDetails", model: "type[BaseModel]", prefix: str) -> str:
    reason = detail.get("ctx", {}).get("error")
    if isinstance(reason, PgkitError):
        return str(reason)
    parts = detail["loc"]
    key = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)[1:]
    if detail["type"] == "extra_forbidden":
        return unknown_name("key", key, _keys(model, parts[:-1], key.rpartition(".")[0]))
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "string_pattern_mismatch":
        extra = model.model_fields[str(parts[-1])].json_schema_extra
        allowed = str(extra["allowed"]) if isinstance(extra, dict) else "a text of another form"
    else:
        message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        allowed = _TYPES.get(detail["type"], message) + _example(detail["type"], detail["input"])
    return f"{key} must be {allowed}, got {format_value(detail['input'])}"


def _example(expected: str, value: Any) -> str:
    """How a value is written that is text because it has another form than TOML's: ``100k``, ``64,64``."""
    if expected == "int_type" and isinstance(value, str) and value[:1].isdigit():
        return " such as 100_000 or 1e5"
    return " such as [64,64]" if expected == "tuple_type" and isinstance(value, str) and "," in value else ""


def _keys(model: "type[BaseModel]", parts: Sequence[int | str], prefix: str) -> list[str]:
    """List the full dotted keys of the table at ``parts``."""
    annotation: Any = model
    for part in parts:
        annotation = model.model_fields[str(part)].annotation if annotation is model else get_args(annotation)[-1]
        if get_origin(annotation) is dict:  # a table whose keys the user chooses
            continue
        if type(None) in get_args(annotation):  # a table that may be missing
            annotation = next(each for each in get_args(annotation) if each is not type(None))
        assert isinstance(annotation, type)
        from pydantic import BaseModel  # loaded by the caller; not imported at the top, so that this module stays light

        assert issubclass(annotation, BaseModel)
        model = annotation
    return [f"{prefix}.{name}" if prefix else name for name in model.model_fields]


def format_value(value: Any) -> str:
    """Write a value as a user would in a configuration: text in quotes, true and false in lower case."""
    return json.dumps(value, default=repr)


def worker_hint() -> str:
    """In a worker process, why a name may be unknown that the main process knows; otherwise empty."""
    if multiprocessing.parent_process() is None:
        return ""
    guard = 'if __name__ == "__main__":'
    return f"worker processes do not run what a script has below {guard} so register it above that, or in a module"


def unknown_name(what: str, name: str, allowed: Iterable[str], or_else: str = "") -> str:
    """Say that ``name`` is no known ``what``, guess what was meant and list what is allowed.

    >>> unknown_name("optimizer", "adm", ["adam", "sgd"])
    "unknown optimizer 'adm', did you mean 'adam'? (allowed: adam, sgd)"

    Args:
        what: what the name should be the name of.
        name: what the user wrote.
        allowed: the known names.
        or_else: what is allowed beside them, in words.
    """
    names = sorted(allowed)
    meant = SYNONYMS.get(name.rpartition(".")[2], "")
    same = [each for each in names if meant and each.rpartition(".")[2] == meant.rpartition(".")[2]]
    guess = same or ([meant] if meant and what == "key" else get_close_matches(name, names, n=1))
    hint = f", did you mean {guess[0]!r}?" if guess else ""
    choices = [", ".join(names), or_else]
    allowed_names = ", or ".join(choice for choice in choices if choice)
    worker = f"; {reason}" if (reason := worker_hint()) else ""
    return f"unknown {what} {name!r}{hint} (allowed: {allowed_names}){worker}"


def suggest(word: Any, words: Iterable[str]) -> str:
    """Guess the word that was meant: return ``" (did you mean 'lr'?)"``, or an empty text where none is close."""
    words = list(words)
    meant = SYNONYMS.get(str(word), "").rpartition(".")[2]
    close = [meant] if meant in words else get_close_matches(str(word), words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
