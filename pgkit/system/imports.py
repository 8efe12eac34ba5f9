"""Import what a configuration names as ``"package.module:Name"``."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from pgkit.errors import PgkitError, describe_exception, suggest


def import_object(name: str, key: str) -> Any:
    """Import the object ``"package.module:Name"``, also from modules in the working directory.

    >>> import_object("fractions:Fraction", "example")(1, 2)
    Fraction(1, 2)

    Args:
        name: of the object.
        key: what messages call it, such as ``policy.network``.

    Raises:
        PgkitError: there is no such object, or its module cannot be imported.
    """
    module = import_module(name, key)
    short = name.partition(":")[2]
    if not hasattr(module, short):
        hint = suggest(short, [entry for entry in vars(module) if entry[:1].isupper()])
        raise PgkitError(f"{key} {name!r}: {module.__name__} has no {short!r}{hint}")
    return getattr(module, short)


def import_module(name: str, key: str) -> ModuleType:
    """Import the module of ``"package.module:Name"``, also from the working directory.

    Raises:
        PgkitError: the name has another form, or the module cannot be imported.
    """
    module_name, _, short = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), short)):
        raise PgkitError(f"{key} {name!r}: expected 'package.module:Class'")
    working_directory = os.getcwd()
    sys.path.append(working_directory)
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # importing runs the module's code, which may raise anything
        raise PgkitError(f"{key} {name!r}: cannot import {module_name!r} ({describe_exception(error)})") from None
    finally:
        sys.path.remove(working_directory)
