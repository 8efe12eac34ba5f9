"""What a comparison will run.

In comes the table of a TOML file (``schema.py``); out goes a :class:`~pgkit.compare.plan.plan.Plan`: arms, cases,
learning rates or quasi-random settings (``search_space.py``), seeds, and a hash of everything that decides numbers.
``baselines.py`` measures the random and constant policies that set the floor of the scores. Start in ``plan.py``; what
changes a plan's hash makes stored comparisons of that plan unusable.
"""
