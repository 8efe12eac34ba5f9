"""Numbers, intervals and points of training in words, the same everywhere in a diagnosis.

>>> with_interval(Quantity(493.6, 480.2, 500.0, 20)), percent(Quantity(0.3125, 0.212, 0.434, 64))
('494 [480, 500]', '31 % [21 %, 43 %]')
"""

import math
from collections.abc import Sequence

from pgkit.diagnose.results import PointResult, Quantity


def number(value: float) -> str:
    """Write a number with about three significant digits.

    >>> [number(x) for x in (0, 9.4, 493.6, 114_000, 0.0123, 1.5e-23, -0.25, math.inf, math.nan)]
    ['0', '9.4', '494', '114,000', '0.0123', '1.5e-23', '-0.25', 'infinity', 'unknown']
    """
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def with_interval(quantity: Quantity) -> str:
    """Write a value and its 95 % interval; the value alone where there is no interval."""
    text = number(quantity.value)
    return text if math.isnan(quantity.low) else f"{text} [{number(quantity.low)}, {number(quantity.high)}]"


def change(quantity: Quantity) -> str:
    """Write a difference with its sign, and its interval.

    >>> change(Quantity(6.6, -1.4, 14.6)), change(Quantity(-13.7, -19.4, -8.0))
    ('+6.6 [-1.4, 14.6]', '-13.7 [-19.4, -8]')
    """
    return ("+" if quantity.value > 0 else "") + with_interval(quantity)


def percent(quantity: Quantity) -> str:
    """Write a share in percent, with its interval."""
    shares = [quantity.value] if math.isnan(quantity.low) else list(quantity[:3])
    texts = [f"{100 * share:.0f} %" for share in shares]
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def at_point(point: PointResult) -> str:
    """Say when a point was.

    >>> at_point(PointResult("seed-3", 114_000.0, 0.228, True, {}))
    'at 114,000 steps (23 % of training)'
    """
    return f"at {point.env_steps:,.0f} steps ({100 * point.share:.0f} % of training)"


def joined(words: Sequence[str]) -> str:
    """Join words by commas and "and".

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def also_at(points: Sequence[PointResult]) -> str:
    """Say at which other points a sentence holds, as a sentence of its own; nothing without other points.

    >>> also_at([PointResult("seed-3", 5_000.0, 0.01, True, {})])
    ' The same holds at 5,000 steps.'
    """
    return f" The same holds at {joined([f'{point.env_steps:,.0f}' for point in points])} steps." if points else ""


def first_sentence(text: str) -> str:
    """Return the first sentence of a text.

    >>> first_sentence("The return fell to 9.4 [9.3, 9.5]. Nothing helped.")
    'The return fell to 9.4 [9.3, 9.5].'
    """
    return text.split(". ")[0].rstrip(".") + "."
