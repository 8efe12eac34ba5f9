"""Replay screening on stored comparisons of full grids: would it have chosen rates as good, and for how many steps?

python scripts/replay_screening.py comparisons/compare-cartpole             # on all tuning seeds at once
python scripts/replay_screening.py comparisons/A comparisons/B --seeds 5    # on seeds 1 to 5, 6 to 10, ...

A case is an arm of an environment and agent, on one block of seeds. Screening has chosen an equivalent rate if it is
that of the full grid on the same seeds, or if the mean scores of the two differ by no more than the ROPE of the plan on
the seeds outside the block, which chose nothing (without such seeds: on the block itself, where the full grid's choice
has the highest mean there is). The share of steps counts runs as if they paused exactly where they are compared.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pgkit import stats
from pgkit.cli.errors import one_line_errors
from pgkit.compare.analysis.pool import Stored, read_stored
from pgkit.compare.plan.baselines import scales
from pgkit.compare.plan.plan import SearchPoint
from pgkit.compare.plan.screening import make_rungs
from pgkit.compare.selection.screening import Screened, SeedScores, screen
from pgkit.compare.selection.stages import tuning_scores
from pgkit.errors import PgkitError


class Replay(NamedTuple):
    """What screening would have done in a case.

    Attributes:
        cell: environment, agent and arm.
        full: the rate that the full grid selects.
        screened: the rate that screening selects.
        lost: mean score of the first minus that of the second, on seeds that selected neither.
        share: of the steps of the full grid.
        equivalent: whether both rates are the same, or differ by no more than the ROPE.
    """

    cell: tuple[str, str, str]
    full: float
    screened: float
    lost: float
    share: float
    equivalent: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="comparisons of full grids")
    parser.add_argument("--seeds", type=int, help="tuning seeds of a block; default: all")
    arguments = parser.parse_args()
    with one_line_errors():
        replays = [each for place in arguments.directories for each in replay(read_stored(place), arguments.seeds)]
        print(report(replays))


def replay(stored: Stored, block: int | None = None) -> Iterator[Replay]:
    """Replay screening on every arm and block of seeds of a comparison.

    Raises:
        PgkitError: it was screened itself, tunes all hyperparameters, or has fewer seeds than a block.
    """
    plan = stored.plan
    if plan.rungs or plan.all_tuned:
        raise PgkitError(f"{stored.name} is no comparison of full grids of learning rates")
    size = len(plan.tuning_seeds) if block is None else block
    if not 1 <= size <= len(plan.tuning_seeds):
        raise PgkitError(f"--seeds must be 1 to {len(plan.tuning_seeds)} in {stored.name}, got {size}")
    scale = scales(plan, stored.baselines)
    for cell, scores in tuning_scores(plan, scale, stored.runs).items():
        for first in range(0, len(plan.tuning_seeds) - size + 1, size):
            seeds = plan.tuning_seeds[first : first + size]
            others = [seed for seed in plan.tuning_seeds if seed not in seeds] or seeds
            points = _complete(scores, plan.tuning_seeds)
            if {*plan.points(cell[2])} <= {*points}:  # else it is not finished
                yield _replay(cell, points, scores, seeds, others, plan.config.rope)


def report(replays: Sequence[Replay]) -> str:
    """Return a line for each cell, those that are not equivalent, and the sums."""
    cells = dict.fromkeys(each.cell for each in replays)
    count = sum(each.equivalent for each in replays)
    value, low, high = stats.wilson(count, len(replays))
    lines = [
        f"{'environment, agent, arm':<48} {'cases':>5} {'same':>5} {'equivalent':>10} {'steps':>6}",
        *(_line(", ".join(cell), [each for each in replays if each.cell == cell]) for cell in cells),
        _line(f"all {len(cells)} cells", replays),
        *(_difference(each) for each in replays if not each.equivalent),
        f"equivalent in {count} of {len(replays)} cases: {value:.1%}, 95 % {low:.1%} to {high:.1%} (Wilson)",
    ]
    return "\n".join(lines)


def _difference(replay: Replay) -> str:
    chosen = f"{replay.screened:g} in place of {replay.full:g}"
    return f"not equivalent: {', '.join(replay.cell)}: {chosen}, which scores {replay.lost:+.3f} more"


def _line(name: str, replays: Sequence[Replay]) -> str:
    same = sum(each.full == each.screened for each in replays)
    equivalent = sum(each.equivalent for each in replays)
    share = np.mean([each.share for each in replays])
    return f"{name:<48} {len(replays):>5} {same:>5} {equivalent:>10} {share:>6.1%}"


def _complete(scores: SeedScores, seeds: Sequence[int]) -> list[SearchPoint]:
    """Return the settings of an arm that all seeds have trained, ascending."""
    points = sorted({point for point, _ in scores})
    return [point for point in points if all((point, seed) in scores for seed in seeds)]


def _replay(
    cell: tuple[str, str, str],
    points: Sequence[SearchPoint],
    scores: SeedScores,
    seeds: Sequence[int],
    others: Sequence[int],
    rope: float,
) -> Replay:
    screened = screen(points, None, make_rungs(len(seeds)), seeds, scores)
    full, chosen = (max(of, key=lambda point: _mean(scores, point, seeds)) for of in (points, screened.going_on))
    lost = _mean(scores, full, others) - _mean(scores, chosen, others)
    share = _steps(screened, len(seeds)) / (len(points) * len(seeds))
    return Replay(cell, full.lr, chosen.lr, lost, share, full == chosen or abs(lost) <= rope)


def _mean(scores: SeedScores, point: SearchPoint, seeds: Sequence[int]) -> float:
    return float(np.mean([scores[point, seed][1] for seed in seeds]))


def _steps(screened: Screened, seeds: int) -> float:
    """Return the steps that screening takes, counted in whole runs."""
    return len(screened.going_on) * seeds + sum(drop.seeds * drop.share for drop in screened.drops.values())


if __name__ == "__main__":
    main()
