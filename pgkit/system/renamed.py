"""Names of earlier versions: asking for one fails with the name that it has now."""

import sys


def renamed(module: str, name: str, now: str) -> ImportError | AttributeError:
    """Return what a module's ``__getattr__`` raises for a name that it had in an earlier version.

    It is an :class:`AttributeError`, so that ``hasattr`` is false. Only ``from module import name``, which hides the
    message of an AttributeError, gets an :class:`ImportError`: there the import system is what asks for the name.

    >>> from pgkit.system.renamed import renamed
    >>> renamed("pgkit", "play", "pgkit.rollouts.evaluate.evaluate_policy")
    AttributeError('pgkit.play is now pgkit.rollouts.evaluate.evaluate_policy')

    Args:
        module: name of the module.
        name: the earlier name.
        now: the full name that it has now.
    """
    frame = sys._getframe(2)  # beyond ``__getattr__``
    importing = frame.f_globals.get("__name__", "").startswith("importlib.")
    return (ImportError if importing else AttributeError)(f"{module}.{name} is now {now}")
