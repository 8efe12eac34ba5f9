"""Compute the tables of pgkit/optim/README.md and put them between their markers.

    python scripts/optimizers_readme.py

``step_lengths`` shows what "lr" means in each optimizer: how long a step is at lr 1 under a constant gradient.
"""

import argparse
from pathlib import Path

import optimizers_convergence as convergence
import torch

from pgkit.optim import list_optimizers, make, spec

README = Path(__file__).parents[1] / "pgkit" / "optim" / "README.md"
SHOWN_STEPS = (1, 2, 10, 100, 1000)
SMALL_GRADIENT = 0.01


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        text = replace_table(text, name, table)
    README.write_text(text, encoding="utf-8")


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its markers."""
    paths = {
        landscape: {name: convergence.walk(landscape, name) for name in convergence.walkers()}
        for landscape in convergence.LANDSCAPES
    }
    return {"optimizers": optimizer_table(), "steps": step_table(), "convergence": convergence.table(paths)}


def replace_table(text: str, name: str, table: str) -> str:
    """Replace what stands between ``<!-- name -->`` and ``<!-- end of name -->``."""
    first = f"<!-- {name} -->"
    last = f"<!-- end of {name} -->"
    head, _, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not end:
        raise ValueError(f"{README} has no markers {first} ... {last}")
    return f"{head}{first}\n{table}\n{last}{tail}"


def optimizer_table() -> str:
    """Formula, defaults and source of every optimizer, from its docstring and signature."""
    lines = ["| optimizer | formula | defaults | source |", "|---|---|---|---|"]
    for entry in map(spec, list_optimizers()):
        formula = " ".join(entry.formula.partition("\n\n")[0].split()).replace("|", r"\|")
        defaults = ", ".join(f"{key} {value}" for key, value in entry.defaults.items())
        lines.append(f"| `{entry.name}` | {formula} | {defaults} | {entry.source} |")
    return "\n".join(lines)


def step_table() -> str:
    """Lengths of steps at lr 1, with other hyperparameters at their defaults."""
    heads = [f"step {step:,}" for step in SHOWN_STEPS]
    small_head = f"step 1 if g = {SMALL_GRADIENT}"
    lines = [f"| optimizer | {' | '.join(heads)} | {small_head} |", "|---|" + "---|" * (len(SHOWN_STEPS) + 1)]
    for name in convergence.walkers():
        lengths = step_lengths(name, 1.0, max(SHOWN_STEPS))
        small = step_lengths(name, SMALL_GRADIENT, 1)
        numbers = [f"{lengths[step - 1]:.4g}" for step in SHOWN_STEPS] + [f"{small[0]:.4g}"]
        lines.append(f"| `{name}` | {' | '.join(numbers)} |")
    return "\n".join(lines)


def step_lengths(name: str, gradient: float, steps: int) -> list[float]:
    """How far each step would move a parameter that stays at 0, at lr 1 under a constant gradient."""
    optimizer = make(name, lr=1.0)
    params = {"p": torch.zeros(1, 1, dtype=torch.float64)}
    grads = {"p": torch.full((1, 1), gradient, dtype=torch.float64)}
    state = optimizer.init(params)
    lengths = []
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params, **convergence.of_policy(params, grads))
        lengths.append(-updates["p"].item())
    return lengths


if __name__ == "__main__":
    main()
