"""Numbers as physicists write them."""

from __future__ import annotations

import math


def with_error(value: float, error: float | None) -> str:
    """Write a value with its standard error in the last digits: (-0.489312, 4.1e-5) is "-0.48931(4)".

    One digit of the error is kept, two where it starts with 1; without a usable error, six decimals.
    """
    if not math.isfinite(value):
        return str(value)
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.6f}"
    digits = 2 if f"{error:.1e}".startswith("1.") else 1
    decimals = digits - 1 - int(f"{error:.{digits - 1}e}".partition("e")[2])
    if decimals <= 0:
        return f"{round(value, decimals):.0f}({round(error, decimals):.0f})"
    scaled = round(error * 10**decimals)
    return f"{value:.{decimals}f}({scaled})"
