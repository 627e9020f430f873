from __future__ import annotations

import pytest

from kalam.errors import Unsupported
from kalam_http.accept import check_accepts, choose_format, quality

JSON = "application/json"


@pytest.mark.parametrize(
    "header", [None, "", " ", "*/*", "application/*", JSON, "text/csv, */*;q=0.1", "Application/JSON; charset=utf-8"]
)
def test_json_is_allowed(header):
    check_accepts(header, JSON)


@pytest.mark.parametrize(
    "header", ["text/csv", "text/*", "*/*;q=0", f"{JSON};q=0, */*", f"{JSON};q=x", ",", ";", "json"]
)
def test_json_is_not_allowed(header):
    with pytest.raises(Unsupported):
        check_accepts(header, JSON)


def test_the_most_specific_range_decides():
    header = "*/*;q=0.1, application/*;q=0.5, application/json;q=0.9"
    assert [quality(header, kind) for kind in (JSON, "application/xml", "text/csv")] == [0.9, 0.5, 0.1]


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("text/csv", "text/csv"),
        ("text/csv, application/json", JSON),
        ("application/json;q=0.5, text/*", "text/csv"),
        ("application/json;q=0, */*;q=0.1", "text/csv"),
    ],
)
def test_the_format_that_is_wanted_most_is_chosen(header, chosen):
    assert choose_format(header, [JSON, "text/csv"]) == chosen


def test_no_format_that_is_wanted_is_an_error_that_names_the_offered_ones():
    with pytest.raises(Unsupported) as caught:
        choose_format("image/png", [JSON, "text/csv"])
    assert "application/json, text/csv" in caught.value.fields["hint"]
