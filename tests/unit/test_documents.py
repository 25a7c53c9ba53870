"""Reading bodies: the repair of a trailing comma, and exact numbers."""

import contextlib
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.domain.errors import Malformed
from tether.ingest.json_reader import decode_document, decode_value

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def with_trailing_commas(value: Any) -> str:
    """JSON with a comma before every bracket that closes something."""
    if isinstance(value, dict):
        members = (f"{json.dumps(name)} : {with_trailing_commas(v)}" for name, v in value.items())
        return "{" + " ,".join(members) + (", }" if value else "}")
    if isinstance(value, list):
        return "[" + ",".join(map(with_trailing_commas, value)) + ("\n,]" if value else "]")
    return json.dumps(value, ensure_ascii=False)


@settings(derandomize=True, database=None, max_examples=300)
@given(value=values)
def test_any_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    assert decode_value(json.dumps(value).encode()) == value
    assert decode_value(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(derandomize=True, database=None, max_examples=300)
@given(value=values)
def test_a_trailing_comma_anywhere_changes_nothing(value: Any) -> None:
    assert decode_value(with_trailing_commas(value).encode()) == value


@settings(derandomize=True, database=None, max_examples=300)
@given(text=st.text('{}[],:" \\1a', max_size=20))
def test_what_is_accepted_is_json_but_for_trailing_commas(text: str) -> None:
    try:
        value = decode_value(text.encode())
    except Malformed:
        return
    assert decode_value(json.dumps(value, default=int).encode()) == value


@pytest.mark.parametrize("text", ['{"a":"x,]"}', '{"a":"\\",}"}', '{"a":",]","b":[1,],}'])
def test_commas_and_brackets_in_strings_are_left_alone(text: str) -> None:
    plain = text.replace(",],}", "]}") if text.endswith(",}") else text
    assert decode_document(text.encode()) == json.loads(plain)


def test_numbers_keep_their_digits() -> None:
    found = decode_document(b'{"a": 22.0, "b": 1e3, "c": 123456789012345678901234567890, "d": -0}')
    assert [str(value) for value in found.values()] == [
        "22.0", "1E+3", "123456789012345678901234567890", "-0",
    ]  # fmt: skip
    assert all(isinstance(value, Decimal) for value in found.values())


@pytest.mark.parametrize(
    "body", [b'{"a": "' + b'\\"' * 400_000, b'{"a": [' + b'"' * 900_001, b"[" + b", " * 400_000]
)
def test_the_repair_of_a_broken_body_takes_no_longer_than_reading_it(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises(Malformed):
        decode_document(body)
    assert time.process_time() - start < 2


def test_no_depth_of_nesting_escapes_as_another_error() -> None:
    for depth in range(1, 1100):
        body = b'{"a":' + b"[" * depth + b'"\\u0041"' + b"]" * depth + b"}"
        with contextlib.suppress(Malformed):
            decode_document(body)
