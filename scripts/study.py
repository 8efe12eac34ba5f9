"""Run the study of `configs/study-2026.toml` piece by piece; `scripts/study_report.py` writes its pages.

    python scripts/study.py                      # everything that is missing; the same command continues after any stop
    python scripts/study.py cartpole-ppo         # one piece
    python scripts/study.py --dry-run            # what each piece would cost

A piece is a comparison of one case, an environment and an agent, so that each that is finished is whole. It runs in
`comparisons/study-2026/`; then its plan, its provenance and its raw results go to `scripts/results/study-2026/pieces/`.

The track "lr only" has every arm in every case, the track "all tuned" its six best arms on CartPole and LunarLander.
*Best* was fixed before anything ran: the highest mean score of the evaluation seeds, averaged over all cases with equal
weight, of arms that are in all of them, where the control is none.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pgkit.cli.errors import one_line_errors
from pgkit.compare.api import load_analysis, make_executor
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.forecast import forecast
from pgkit.compare.execution.scheduler import execute
from pgkit.compare.execution.store import RAW, Store
from pgkit.compare.plan.layers import arm_label
from pgkit.compare.plan.plan import Plan, make_plan
from pgkit.config.load import read_table
from pgkit.errors import PgkitError, unknown_name
from pgkit.logging.parquet import write_frame

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "study-2026.toml"
PIECES = ROOT / "scripts" / "results" / "study-2026" / "pieces"
WORK = Path("comparisons") / "study-2026"

CONTROL = "adam_control"
"""Adam a second time: it measures how often the study calls a difference what is none."""

LEFT_OUT = {"ppo": ("npg", "trpo")}
"""Arms that are not trained with an agent: conjugate gradients in every minibatch take too long."""

BEST = 6
"""Arms of the track "all tuned"."""

TUNED_ENVIRONMENTS = ("CartPole-v1", "LunarLander-v3")
TUNED = {"track": "all tuned", "screen": "off", "settings": 16}


class Piece(NamedTuple):
    """A comparison of one case: its name, and its table as in TOML."""

    name: str
    table: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        """The resolved plan."""
        return make_plan({"name": self.name, **self.table}, source=f"{CONFIG.name}, {self.name}")

    @property
    def finished(self) -> bool:
        """Whether its results are in the repository."""
        return (PIECES / self.name / "chunks").is_dir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help="default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    with one_line_errors():
        check_names(arguments.pieces)
        for pieces in (lr_pieces, tuned_pieces):
            wanted = [piece for piece in pieces() if not arguments.pieces or piece.name in arguments.pieces]
            for piece in (piece for piece in wanted if not piece.finished):
                if arguments.dry_run:
                    print(piece.name, forecast(piece.plan, arguments.workers).sentence, flush=True)
                else:
                    run(piece, arguments.workers)


def check_names(names: Sequence[str]) -> None:
    """Check that there are such pieces, or will be."""
    of_lr = [piece.name for piece in lr_pieces()]
    tuned = [f"{name}-tuned" for name in of_lr if name.partition("-")[0] in map(short, TUNED_ENVIRONMENTS)]
    for name in names:
        if name not in (*of_lr, *tuned):
            raise PgkitError(unknown_name("piece", name, [*of_lr, *tuned]))


def lr_pieces() -> list[Piece]:
    """Return the pieces of the track "lr only"."""
    table = read_table(CONFIG)
    return [of_case(table, environment, agent) for environment in table["environments"] for agent in table["agents"]]


def tuned_pieces() -> list[Piece]:
    """Return the pieces of the track "all tuned"; none before its arms are known."""
    pieces = lr_pieces()
    if not all(piece.finished for piece in pieces):
        return []
    table = read_table(CONFIG)
    arms = best_arms(pieces)
    optimizers = [entry for entry in table["optimizers"] if arm_label(entry) in arms]
    tuned = {**table, **TUNED, "optimizers": optimizers}
    return [
        of_case(tuned, environment, agent, "-tuned") for environment in TUNED_ENVIRONMENTS for agent in table["agents"]
    ]


def of_case(table: Mapping[str, Any], environment: str, agent: str, suffix: str = "") -> Piece:
    """Return the piece of an environment and an agent."""
    optimizers = [entry for entry in table["optimizers"] if arm_label(entry) not in LEFT_OUT.get(agent, ())]
    case = {"environments": {environment: table["environments"][environment]}, "agents": [agent]}
    return Piece(f"{short(environment)}-{agent}{suffix}", {**table, **case, "optimizers": optimizers})


def short(environment: str) -> str:
    """Return ``cartpole`` for ``CartPole-v1``."""
    return environment.partition("-")[0].lower()


def best_arms(pieces: Sequence[Piece]) -> list[str]:
    """Return the arms with the highest mean score over cases, each of which has the same weight."""
    arms = [load_analysis(PIECES / piece.name).tables["arms"].set_index("optimizer")["mean"] for piece in pieces]
    mean = pd.concat(arms, axis=1).mean(axis=1, skipna=False)  # NaN: not in every case
    return list(mean.drop(CONTROL).nlargest(BEST).index)


def run(piece: Piece, workers: int) -> None:
    """Run what is missing of a piece, and keep its results."""
    place = WORK / piece.name
    with Display() as display, closing(make_executor("local", workers)) as executor:
        display.say(f"{piece.name}: plan {piece.plan.hash[:12]}")
        execute(piece.plan, Store(place), executor, display)
    keep(Store(place), PIECES / piece.name)


def keep(store: Store, directory: Path) -> None:
    """Copy plan, provenance, baselines and raw results, these as one file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("plan.json", "provenance.json", "baselines.parquet"):
        shutil.copy2(store.directory / name, directory / name)
    results = store.load()[[name for name in RAW if name != "batch"]]
    write_frame(Store(directory).batches / "all.parquet", results)


if __name__ == "__main__":
    main()
