"""Run every optimizer class of a package through pgkit's adapter, and write what works and what is refused.

    python scripts/survey_optimizers.py [--package pytorch_optimizer] [--out pgkit/optim/SURVEY.md] [--only Adan Lamb]

Each class makes steps for two members, is written to a checkpoint halfway, loaded and continued, and makes the steps
of one member alone; then it trains two members with a recorded run. It works if all bits are the same.
"""

import argparse
import importlib
import inspect
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pgkit.config.load import parse_config
from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, from_config
from pgkit.optim.diagnostics import step_errors
from pgkit.runs import checkpoint
from pgkit.training.train import train
from pgkit.types import Params

UPDATES = 6
SEEDS = (0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="pytorch_optimizer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "pgkit" / "optim" / "SURVEY.md")
    parser.add_argument("--only", nargs="*", help="names of classes; nothing is written then")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {}
    for name in arguments.only or classes(arguments.package):
        results[name] = survey(f"{arguments.package}:{name}")
        print(f"{name}: {results[name]}", flush=True)
        if not arguments.only:
            arguments.out.write_text(page(arguments.package, results), encoding="utf-8")


def classes(package: str) -> list[str]:
    """The names of all optimizer classes that a package exports."""
    content = vars(importlib.import_module(package))
    return sorted(n for n, c in content.items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer))


def survey(name: str) -> str:
    """Say "works", or in one line why not."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            return try_steps(name, Path(directory)) or try_training(name, Path(directory)) or "works"
    except PgkitError as error:
        return str(error)
    except Exception as error:  # this is what the survey looks for
        return f"TRACEBACK {type(error).__name__}: {error}"


def try_steps(name: str, directory: Path) -> str:
    """Step, save, load and step; and step one member alone. Returns what is wrong, or nothing."""
    params = initial_params()
    optimizer = from_config([{"name": name}] * len(SEEDS))
    halfway, state = steps(optimizer, params, optimizer.init(params))
    checkpoint.save(directory / "state.pt", optimizer.dump(state))
    end, state = steps(optimizer, halfway, state)
    if errors := step_errors(state):
        return next(iter(errors.values()))
    resumed, _ = steps(optimizer, halfway, optimizer.load(checkpoint.load(directory / "state.pt"), halfway))
    if not same(resumed, end):
        return "WRONG: resumed, its bits differ"
    single = {key: leaf[:1] for key, leaf in params.items()}
    alone = from_config([{"name": name}])
    half_alone, state = steps(alone, single, alone.init(single))
    if not same(steps(alone, half_alone, state)[0], {key: leaf[:1] for key, leaf in end.items()}):
        return "WRONG: alone, its bits differ"
    return "WRONG: its parameters do not move" if same(end, params) else ""


def try_training(name: str, directory: Path) -> str:
    """Train two members, with a checkpoint on the way. Returns why one has failed, or nothing."""
    table = {"name": "survey", "steps": 200, "env": {"id": "CartPole-v1"}, "policy": {"hidden": [8]}}
    table |= {"agent": {"name": "actor-critic"}, "optimizer": {"name": name}, "checkpoint_points": 2}
    config = parse_config(table | {"evaluation": {"points": 0, "final_episodes": 1}})
    result = train([config.model_copy(update={"seed": seed}) for seed in SEEDS], directory / "run")
    return next(iter(result.reasons.values()), "")


def initial_params() -> Params:
    random = torch.Generator().manual_seed(0)
    shapes = {"actor.0.weight": (4, 8), "actor.0.bias": (1, 8), "actor.1.weight": (8, 2), "actor.1.bias": (1, 2)}
    return {name: torch.randn(len(SEEDS), *shape, generator=random) for name, shape in shapes.items()}


def steps(optimizer: Optimizer, params: Params, state: Any) -> tuple[Params, Any]:
    """A few steps; the gradient depends on the parameters, so that errors would add up."""
    for _ in range(UPDATES):
        grads = {name: torch.sin(leaf) + 0.1 * leaf for name, leaf in params.items()}
        params, _, state = optimizer.apply(grads, state, params)
    return params, state


def same(first: Params, second: Params) -> bool:
    return all(torch.equal(leaf, second[name]) for name, leaf in first.items())


def page(package: str, results: dict[str, str]) -> str:
    """The table as Markdown."""
    works = [name for name, result in results.items() if result == "works"]
    lines = [
        f"# Optimizers of {package} {version(package)}",
        "",
        f"{len(works)} of {len(results)} classes work with their defaults, as `optimizer.name={package}:<class>`:",
        "two members train, are saved, loaded and continued with the same bits, and have the same bits alone. Others",
        "are refused before training, in the line beside their name. Written by `python scripts/survey_optimizers.py`.",
        "",
        "Works: " + ", ".join(f"`{name}`" for name in works) + ".",
        "",
        "| class | refused with |",
        "|---|---|",
    ]
    refused = {name: text.replace("|", "\\|") for name, text in results.items() if text != "works"}
    return "\n".join([*lines, *(f"| `{name}` | {text} |" for name, text in refused.items()), ""])


if __name__ == "__main__":
    main()
