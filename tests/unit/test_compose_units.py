"""Durations, sizes and CPU shares: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.units import duration, nano_cpus, size

SECOND = 1_000_000_000
UNITS = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("10s", 10 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5400 * SECOND),
        ("500ms", SECOND // 2),
        ("20µs", 20_000),
        ("0", 0),
        (0, 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_nanoseconds(text: object, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


@pytest.mark.parametrize(
    "value", ["", "10", 10, "s", "-1s", "1 s", "1s ", "1d", "1m30", True, None, [], "9" * 20 + "h"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match='expected a duration such as "10s"'):
        duration(value)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 10_000), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts: dict[str, int]) -> None:
    text = "".join(f"{number}{unit}" for unit, number in parts.items())
    assert duration(text) == sum(number * UNITS[unit] for unit, number in parts.items())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64M", 64 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        ("1 gb", 1024**3),
        ("1GiB", 1024**3),
        ("10k", 10_240),
        ("7b", 7),
        ("1024", 1024),
        (1024, 1024),
    ],
)
def test_a_size_is_read_as_bytes(text: object, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("value", ["", "lots", "-1M", -1, "1X", "1  M", True, None, 1.5, {}, "9" * 20 + "P"])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match='expected a size such as "64M"'):
        size(value)


@settings(deadline=None)
@given(st.integers(0, 4000), st.sampled_from("kmgtp"), st.sampled_from(["", "b", "ib"]), st.booleans())
def test_every_unit_of_size_is_a_power_of_1024(number: int, unit: str, tail: str, upper: bool) -> None:
    text = f"{number}{unit}{tail}"
    assert size(text.upper() if upper else text) == number * 1024 ** ("kmgtp".index(unit) + 1)


@settings(deadline=None)
@given(st.integers(0, 10**12))
def test_cpus_are_exact_to_the_billionth(nano: int) -> None:
    assert nano_cpus(f"{nano // 10**9}.{nano % 10**9:09}") == nano


def test_cpus_may_be_a_number() -> None:
    assert nano_cpus(0.1) == 100_000_000
    assert nano_cpus(2) == 2 * 10**9


@pytest.mark.parametrize("value", ["", "many", "-1", -0.5, "nan", "inf", True, None, []])
def test_what_is_no_number_of_cpus_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a number of CPUs"):
        nano_cpus(value)


def test_a_cpu_is_not_divided_further_than_the_engine_can() -> None:
    with pytest.raises(ValueError, match="billionths at most"):
        nano_cpus("0.0000000001")


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [(".5s", 500_000_000), ("1.s", 10**9), ("1\u03bcs", 1000), ("1.9ns1.9ns", 2)]
)
def test_durations_that_go_reads_too(text: str, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


def test_cpus_may_be_a_fraction() -> None:
    assert nano_cpus("1/4") == 250_000_000
    with pytest.raises(ValueError, match="expected a number of CPUs"):
        nano_cpus("1/0")
    with pytest.raises(ValueError, match="expected a number of CPUs"):
        nano_cpus("1e999999999")
