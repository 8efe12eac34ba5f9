"""Names of earlier versions."""

import importlib

import pytest

import pgkit

EARLIER = {
    "pgkit": ("members", "pgkit.expand_seeds"),
    "pgkit.compare": ("load", "pgkit.compare.load_analysis"),
    "pgkit.optim": ("Recipe", "pgkit.optim.OptimizerSpec"),
}


@pytest.mark.parametrize("module", EARLIER)
def test_an_earlier_name_is_no_attribute_and_says_what_it_is_now(module: str) -> None:
    """``hasattr``, ``getattr`` with a default and whatever inspects modules see an ordinary missing attribute."""
    name, now = EARLIER[module]
    package = importlib.import_module(module)
    assert not hasattr(package, name)
    assert getattr(package, name, None) is None
    with pytest.raises(AttributeError) as missing:
        getattr(package, name)
    with pytest.raises(ImportError) as refused:
        exec(f"from {module} import {name}")
    assert str(missing.value) == str(refused.value) == f"{module}.{name} is now {now}"


def test_what_never_was_is_missing_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pgkit.nonsense
