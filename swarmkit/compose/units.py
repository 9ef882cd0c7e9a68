"""Durations, sizes and CPU shares as Compose files write them, in the units of the Engine API."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from swarmkit.errors import shown

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    # Both signs that Unicode has for it.
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_CPUS = re.compile(r"(\d+\.?\d*|\.\d+)(e-?\d{1,2})?|\d+/0*[1-9]\d*", re.ASCII | re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_INT64_MAX = 2**63 - 1


def duration(value: object) -> int:
    """Nanoseconds of a duration such as `1m30s`, `1.5h` or `500ms`; a bare 0 is allowed.

    The form is Go's time.ParseDuration without a sign, as the Compose Specification's "Specifying
    durations". Raises ValueError where it is anything else.
    """
    if value == "0" or (value == 0 and not isinstance(value, bool)):
        return 0
    if isinstance(value, str):
        parts = _DURATION_PART.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            total = sum(int(Decimal(number) * _NANOSECONDS[unit]) for number, unit in parts)
            if total <= _INT64_MAX:
                return total
    raise ValueError(f'expected a duration such as "10s", "1m30s" or "500ms", got {shown(value)}')


def size(value: object) -> int:
    """Bytes of a size such as `64M`, `1.5 GB` or `1024`; k, m, g, t and p are powers of 1024.

    The Compose Specification's "Specifying byte values", with the `1GiB` that docker also takes.
    Raises ValueError where it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT64_MAX:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        total = int(Decimal(match[1]) * 1024 ** _POWER[match[2].lower()])
        if total <= _INT64_MAX:
            return total
    raise ValueError(f'expected a size such as "64M" or "1.5G", got {shown(value)}')


def nano_cpus(value: object) -> int:
    """Billionths of a CPU: `0.5`, `"0.5"` and `"1/2"` are 500000000. Raises ValueError for what is none."""
    if isinstance(value, int | float | str) and not isinstance(value, bool) and _CPUS.fullmatch(str(value)):
        nano = Fraction(str(value)) * 1_000_000_000
        if nano <= _INT64_MAX:
            if nano.denominator != 1:
                raise ValueError(f"a CPU can be divided into billionths at most, got {shown(value)}")
            return int(nano)
    raise ValueError(f'expected a number of CPUs such as 0.5 or "2", got {shown(value)}')
