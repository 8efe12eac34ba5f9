"""Compute the tables of pgkit/optim/README.md and put them between their marks.

    python scripts/optimizers_readme.py

``effective_steps`` says what "lr" means in each recipe: how long a step is at lr 1 under a constant gradient.
"""

from pathlib import Path

import optimizers_convergence as convergence
import torch

from pgkit.optim import list_optimizers, make, spec

README = Path(__file__).parents[1] / "pgkit" / "optim" / "README.md"
SHOWN = (1, 2, 10, 100, 1000)
SMALL = 0.01


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        text = replaced(text, name, table)
    README.write_text(text, encoding="utf-8")


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its marks."""
    walks = {
        name: {recipe: convergence.walk(name, recipe) for recipe in list_optimizers()}
        for name in convergence.LANDSCAPES
    }
    return {"recipes": recipe_table(), "steps": step_table(), "convergence": convergence.table(walks)}


def replaced(text: str, name: str, table: str) -> str:
    """The text with the table between ``<!-- name -->`` and ``<!-- end of name -->``."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, _, rest = text.partition(first)
    _, found, tail = rest.partition(last)
    if not found:
        raise ValueError(f"{README} has no marks {first} ... {last}")
    return f"{head}{first}\n{table}\n{last}{tail}"


def recipe_table() -> str:
    """Formula, defaults and source of every recipe, from its docstring and signature."""
    lines = ["| recipe | formula | defaults | source |", "|---|---|---|---|"]
    for recipe in map(spec, list_optimizers()):
        formula = " ".join(recipe.formula.partition("\n\n")[0].split()).replace("|", r"\|")
        defaults = ", ".join(f"{key} {value}" for key, value in recipe.defaults.items())
        lines.append(f"| `{recipe.name}` | {formula} | {defaults} | {recipe.source} |")
    return "\n".join(lines)


def step_table() -> str:
    """Lengths of steps at lr 1, other hyperparameters at their defaults."""
    heads = [f"step {step:,}" for step in SHOWN]
    lines = [f"| recipe | {' | '.join(heads)} | step 1 if g = {SMALL} |", "|---|" + "---|" * (len(SHOWN) + 1)]
    for recipe in list_optimizers():
        steps, small = effective_steps(recipe, 1.0, max(SHOWN)), effective_steps(recipe, SMALL, 1)
        numbers = [f"{steps[step - 1]:.4g}" for step in SHOWN] + [f"{small[0]:.4g}"]
        lines.append(f"| `{recipe}` | {' | '.join(numbers)} |")
    return "\n".join(lines)


def effective_steps(recipe: str, gradient: float, steps: int) -> list[float]:
    """How far each step would move a parameter that stays at 0, at lr 1 under that constant gradient."""
    optimizer, params = make(recipe, lr=1.0), {"p": torch.zeros(1, 1, dtype=torch.float64)}
    state, lengths = optimizer.init(params), []
    for _ in range(steps):
        grads = {"p": torch.full((1, 1), gradient, dtype=torch.float64)}
        updates, state = optimizer.update(grads, state, params, fisher_vector_product=convergence.Identity())
        lengths.append(-updates["p"].item())
    return lengths


if __name__ == "__main__":
    main()
