"""Show how every optimizer converges on three landscapes: a table, and a picture of the paths on each landscape.

    python scripts/optimizers_convergence.py      # prints the table, writes pgkit/optim/figures/*.png

On the quadratic and on Rosenbrock's function each optimizer runs at every rate of a grid, all rates as one population,
and the rate that first stays at the goal is shown. On the saddle, whose gradient is noisy, every optimizer has the rate
that makes its first step equally long. ``npg`` gets the Fisher matrix of a Gaussian policy of unit variance whose mean
is the point, which is the identity.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.optim import apply_updates, list_optimizers, make

FIGURES = Path(__file__).parents[1] / "pgkit" / "optim" / "figures"
RATES = torch.logspace(-4, 2, 37, dtype=torch.float64)
FIRST_STEP = 0.05


class Landscape(NamedTuple):
    """A function of two variables to minimise.

    Attributes:
        height: ``height(points) -> (...)`` of points ``(..., 2)``.
        start: the first point.
        steps: number of steps.
        goal: ``goal(points, heights) -> bool (...)``: which points are at the goal.
        noise: standard deviation of the noise on each component of the gradient.
        view: left, right, bottom, top of the picture.
    """

    height: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    steps: int
    goal: Callable[[Tensor, Tensor], Tensor]
    noise: float
    view: tuple[float, float, float, float]


LANDSCAPES = {
    "quadratic": Landscape(
        lambda p: ((p[..., 0] - 1) ** 2 + 20 * (p[..., 1] - 0.5) ** 2) / 2,
        start=(-3.0, 2.0),
        steps=500,
        goal=lambda p, height: height < 1e-3,
        noise=0.0,
        view=(-4.0, 4.0, -1.7, 2.7),
    ),
    "rosenbrock": Landscape(
        lambda p: (1 - p[..., 0]) ** 2 + 100 * (p[..., 1] - p[..., 0] ** 2) ** 2,
        start=(-1.2, 1.0),
        steps=2000,
        goal=lambda p, height: height < 1e-2,
        noise=0.0,
        view=(-1.9, 1.6, -0.8, 2.4),
    ),
    "saddle": Landscape(
        lambda p: p[..., 0] ** 2 - p[..., 1] ** 2,
        start=(-1.0, 0.0),
        steps=500,
        goal=lambda p, height: p[..., 1].abs() > 1,
        noise=0.1,
        view=(-1.3, 0.7, -1.1, 1.1),
    ),
}


class Walk(NamedTuple):
    """The path of an optimizer at one rate, ``(steps + 1, 2)``, and the step from which on it stays at the goal."""

    rate: float
    path: np.ndarray[Any, Any]
    arrived: int | None


class Identity:
    """The Fisher matrix of a Gaussian mean, for ``npg`` and ``trpo``."""

    def __call__(self, vector: dict[str, Tensor]) -> dict[str, Tensor]:
        return vector


class LinearTrial(NamedTuple):
    """Where a step of ``trpo`` would end: the surrogate is linear, the divergence that of Gaussians of variance 1.

    Attributes:
        params: before the step, leaves ``(P, ...)``.
        grads: there.
    """

    params: dict[str, Tensor]
    grads: dict[str, Tensor]

    def __call__(self, moved: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The rise of the surrogate, and the divergence, ``(P,)`` each."""
        steps = {name: leaf - self.params[name] for name, leaf in moved.items()}
        gains = [-(self.grads[name] * step).flatten(1).sum(1) for name, step in steps.items()]
        squares = [step.square().flatten(1).sum(1) for step in steps.values()]
        return torch.stack(gains).sum(0), torch.stack(squares).sum(0) / 2


def of_policy(params: dict[str, Tensor], grads: dict[str, Tensor]) -> dict[str, Any]:
    """The extra arguments of optimizers for policies; every step is the first from its rollout."""
    start = torch.ones(len(next(iter(params.values()))), dtype=torch.bool)
    return {"fisher_vector_product": Identity(), "trial": LinearTrial(params, grads), "rollout_start": start}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    walks = {}
    FIGURES.mkdir(exist_ok=True)
    for landscape in LANDSCAPES:
        walks[landscape] = {optimizer: walk(landscape, optimizer) for optimizer in walkers()}
        draw(landscape, walks[landscape])
    print(table(walks))


def walkers() -> list[str]:
    """The optimizers that walk: all but those for matrices, which treat the points of a landscape as Adam does."""
    return [name for name in list_optimizers() if name not in ("muon", "soap")]


def walk(name: str, optimizer: str) -> Walk:
    """Return the walk of an optimizer on the landscape ``name`` at the rate that is shown."""
    landscape = LANDSCAPES[name]
    rates = rate_of_first_step(landscape, optimizer) if landscape.noise else RATES
    paths = walk_all(landscape, optimizer, rates)
    at_goal = landscape.goal(paths, landscape.height(paths))
    stays = at_goal.flip(0).cummin(0).values.flip(0)  # at the goal now, and at every later step
    steps = stays.int().argmax(0).double()
    steps[~stays[9 * landscape.steps // 10]] = math.inf  # at the goal in the end, but perhaps only in passing
    final = landscape.height(paths[-1]).nan_to_num(math.inf, math.inf)
    best = int(steps.argmin() if steps.isfinite().any() else final.argmin())
    arrived = None if steps[best].isinf() else int(steps[best])
    return Walk(rates[best].item(), paths[:, best].numpy(), arrived)


def walk_all(landscape: Landscape, name: str, rates: Tensor) -> Tensor:
    """Return the paths ``(steps + 1, P, 2)`` of P walkers, one rate each, all with the same noise: those of evaluation
    parameters, where an optimizer has such."""
    optimizer = make(name, lr=rates)
    params = {"point": torch.tensor(landscape.start, dtype=torch.float64).repeat(len(rates), 1)}
    state = optimizer.init(params)
    path = [params["point"]]
    random = torch.Generator().manual_seed(0)
    for _ in range(landscape.steps):
        noise = landscape.noise * torch.randn(2, generator=random, dtype=torch.float64)
        grads = {"point": slope(landscape.height, params["point"]) + noise}
        updates, state = optimizer.update(grads, state, params, **of_policy(params, grads))
        params = apply_updates(params, updates)
        shown = params if optimizer.eval_params is None else optimizer.eval_params(params, state)
        path.append(shown["point"].clone())
    return torch.stack(path)


def slope(height: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Return the gradient of ``height`` at points ``(P, 2)``."""
    point = point.detach().requires_grad_()
    return torch.autograd.grad(height(point).sum(), point)[0]


def rate_of_first_step(landscape: Landscape, optimizer: str) -> Tensor:
    """Return the rate ``(1,)`` that makes the first step ``FIRST_STEP`` long."""
    first = walk_all(landscape._replace(steps=1), optimizer, torch.ones(1, dtype=torch.float64))
    return FIRST_STEP / (first[1] - first[0]).norm(dim=-1)


def table(walks: dict[str, dict[str, Walk]]) -> str:
    """Write the steps to the goal, and the rate, by optimizer and landscape."""
    lines = ["| optimizer | quadratic | Rosenbrock | saddle |", "|---|---|---|---|"]
    for optimizer in next(iter(walks.values())):
        cells = [cell(LANDSCAPES[name], by_optimizer[optimizer]) for name, by_optimizer in walks.items()]
        lines.append(f"| `{optimizer}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(landscape: Landscape, shown: Walk) -> str:
    steps = f"> {landscape.steps}" if shown.arrived is None else f"{shown.arrived}"
    return f"{steps} ({shown.rate:.2g})"


def draw(name: str, walks: dict[str, Walk]) -> None:
    """Draw a panel for each optimizer: contours, the path until the goal, its start and end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    landscape = LANDSCAPES[name]
    left, right, bottom, top = landscape.view
    x, y = torch.meshgrid(torch.linspace(left, right, 200), torch.linspace(bottom, top, 200), indexing="xy")
    height = landscape.height(torch.stack([x, y], -1))
    levels = torch.quantile(height.flatten(), torch.linspace(0, 1, 11)).unique()
    figure, panels = plt.subplots(4, 4, figsize=(11, 11), dpi=80, sharex=True, sharey=True, layout="constrained")
    for axes, (optimizer, shown) in zip(panels.flat, walks.items(), strict=True):
        axes.contourf(x, y, height, levels, cmap="Blues_r", alpha=0.55)
        axes.contour(x, y, height, levels, colors="white", linewidths=0.5)
        path = shown.path[: None if shown.arrived is None else shown.arrived + 1]
        axes.plot(*path.T, color="#c1121f", linewidth=1.2, marker=".", markersize=2.5, markeredgewidth=0)
        axes.plot(*path[0], "o", color="white", markeredgecolor="#333333", markersize=5)
        axes.plot(*path[-1], "*", color="#ffb703", markeredgecolor="#333333", markeredgewidth=0.6, markersize=11)
        axes.set_title(f"{optimizer}: {cell(landscape, shown)}", fontsize=10)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.locator_params(nbins=4)
        axes.tick_params(labelsize=7, length=2, color="#999999", labelcolor="#666666")
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.suptitle(f"{name}: steps to the goal (learning rate)", fontsize=12)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        FIGURES / f"{name}.png", optimize=True
    )
    plt.close(figure)


if __name__ == "__main__":
    main()
