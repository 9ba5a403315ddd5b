"""What a tool returned, made fit to record."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError

from holdfast.activities.outputs import recordable
from holdfast.activities.secrets import Scrubber
from holdfast.bounds import json_size

NOTHING = Scrubber({})
KEY = "sk-canary-0123456789"
PEM = '-----BEGIN "KEY"-----\nMIIé\\abc\n-----END-----'
SECRETS = Scrubber({"OPENAI_API_KEY": KEY, "SIGNING_KEY": PEM})
RECORDED = 64 * 1024


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    title: str
    when: datetime


@dataclasses.dataclass
class Point:
    x: int
    label: str = "é"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_data_is_recorded_as_it_stands(value: Any) -> None:
    assert recordable(value, NOTHING) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xff\x00", "_wA="),
        (Point(1), {"x": 1, "label": "é"}),
        (
            Line(title="Tea", when=datetime(2026, 1, 2, tzinfo=UTC)),
            {"title": "Tea", "when": "2026-01-02T00:00:00Z"},
        ),
        (
            [Line(title="Tea", when=datetime(2026, 1, 2, tzinfo=UTC))],
            [{"title": "Tea", "when": "2026-01-02T00:00:00Z"}],
        ),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), "PT1M30S"),
        ({7}, [7]),
        (frozenset({"a"}), ["a"]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        ((each for each in [1, 2]), [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_python_values_with_a_json_form_are_recorded_in_it(value: Any, expected: Any) -> None:
    assert recordable(value, NOTHING) == expected


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {"x": [-math.inf]}, object(), {"x": object()}, deep(100_000), endless(), lambda: None],
    ids=["nan", "inf", "inner inf", "object", "inner object", "too deep", "endless", "function"],
)
def test_what_no_json_can_hold_is_an_error_that_is_not_retried(value: Any) -> None:
    with pytest.raises(ApplicationError) as raised:
        recordable(value, NOTHING)
    assert raised.value.type == "ToolResultInvalid"
    assert raised.value.non_retryable
    assert len(str(raised.value)) < 1000


def test_a_hundred_levels_are_not_too_deep() -> None:
    assert recordable(deep(100), SECRETS) == deep(100)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\ud800b", "a?b"),
        ({"\ud800": "\udfff"}, {"?": "?"}),
        ([("x", "\ud800")], [["x", "?"]]),
        ([Point(1, "\ud800")], [{"x": 1, "label": "?"}]),
    ],
    ids=["text", "key", "tuple", "dataclass"],
)
def test_broken_characters_are_replaced(value: Any, expected: Any) -> None:
    assert recordable(value, NOTHING) == expected


@pytest.mark.parametrize(
    "value",
    [
        "x" * 50_000_000,
        [f"line {index}" for index in range(4_000_000)],
        "é" * 100_000,
        "\x01" * 100_000,
        '"' * 70_000,
        {"rows": ['"\n'] * 20_000},
        "x" * (RECORDED - 1),
    ],
    ids=["50 MB text", "50 MB list", "accents", "control characters", "quotes", "quotes in a list", "one too many"],
)
def test_what_is_recorded_never_takes_more_than_64_kilobytes_of_json(value: Any) -> None:
    began = time.monotonic()
    recorded = recordable(value, SECRETS)
    assert isinstance(recorded, str)
    assert json_size(recorded) <= RECORDED
    size = len(value.encode()) if isinstance(value, str) else json_size(value)
    assert f"[cut: {size:,} bytes in all]" in recorded
    begins = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    assert begins.startswith(recorded.partition("… [cut")[0])
    assert time.monotonic() - began < 20


def test_what_just_fits_is_whole() -> None:
    assert recordable("x" * (RECORDED - 2), NOTHING) == "x" * (RECORDED - 2)


@pytest.mark.parametrize("secret", [KEY, PEM], ids=["key", "pem"])
@pytest.mark.parametrize("size", [1, 70_000], ids=["small", "cut"])
def test_no_secret_is_recorded_in_whatever_shape_it_comes(secret: str, size: int) -> None:
    padding = "x" * size
    for value in (
        f"the key is {secret}{padding}",
        {"env": {"k": [secret]}, "padding": padding},
        {secret: padding},
        json.dumps({"k": secret, "padding": padding}),
        [Line(title=secret, when=datetime(2026, 1, 2, tzinfo=UTC)), padding],
        Point(1, secret + padding),
    ):
        text = json.dumps(recordable(value, SECRETS), ensure_ascii=False)
        assert "[secret " in text
        for part in (KEY, "MIIé", "MII\\u00e9", "abc\\n"):
            assert part not in text


def test_names_that_are_longer_than_their_secrets_do_not_carry_an_output_beyond_its_bound() -> None:
    recorded = recordable(["12345678"] * 5000, Scrubber({"A_RATHER_LONG_NAME_OF_A_TOKEN": "12345678"}))
    assert json_size(recorded) <= RECORDED
    assert "12345678" not in recorded


def test_a_secret_across_the_cut_leaves_no_half_behind() -> None:
    for offset in range(0, 60, 3):
        recorded = recordable("x" * (RECORDED - 80 + offset) + KEY + "y" * 1000, SECRETS)
        assert "canary" not in recorded
