"""Search for hyperparameters with Optuna (extra ``tune``): populations of trials, and a report on fresh seeds.

In come a configuration and a space of values; out go an Optuna study in SQLite, ``best.toml`` and a table below
``tuning/<name>``. ``space.py`` reads spaces, ``plan.py`` checks a search before anything runs, ``study.py`` is all that
knows Optuna, ``trials.py`` runs trials, ``report.py`` trains the best one on fresh seeds, ``jobs.py`` says who trains
together. Start reading in ``api.search``; ``README.md`` beside this file explains the rules.
"""

from pgkit.tune.api import search
from pgkit.tune.report import TuneResult

__all__ = ["TuneResult", "search"]
