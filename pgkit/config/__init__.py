"""From TOML to validated, frozen configurations.

In comes a TOML file, shipped or the user's own, and overrides (``optimizer.lr=3e-3``); out goes a
:class:`~pgkit.config.schema.TrainConfig`, or a :class:`~pgkit.errors.PgkitError` of one line.

- ``schema.py``, ``tables.py``: every key with its type, range, default and description. Start here.
- ``load.py``: reading and writing; ``overrides.py``: single settings on the command line or as a dict.
- ``members.py``: one configuration per seed, and what the members of a population must agree in.
- ``names.py``: names of agents and shipped configurations; ``registry.py``: agents and callbacks by name;
  ``listing.py``: the tables of ``pgkit list``.
- ``device.py``: the torch device of a configuration.

A new key is a field of a model there with a docstring below it; ``python scripts/config_reference.py`` then
writes ``README.md``, the table of all keys. A new agent gets its name in ``names.AGENTS``.
"""
