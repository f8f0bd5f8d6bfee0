from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from client import JudgeClient
from client.core.arguments import check_category, check_count, check_threshold, check_timeout
from client.core.errors import RequestError


@pytest.mark.parametrize("value", [1e-6, 5, 2.5, np.float32(2.5), np.int64(3), 1e6])
def test_timeouts(value: float) -> None:
    assert check_timeout(value) == value


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), -float("inf"), 1e7, 10**400, "5", True, None]
)
def test_timeouts_that_cannot_be(value: object) -> None:
    with pytest.raises(RequestError, match=r"^The timeout is .*; expected seconds, more than 0 and at most"):
        check_timeout(value)


@pytest.mark.parametrize("value", [0, 0.0, 1.5, np.float32(1.5), Fraction(1, 2), 3e38])
def test_thresholds(value: float) -> None:
    assert check_threshold(value) == value
    assert check_threshold(None) is None
    assert str(check_threshold(-0.0)) == "0.0"


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 1e400, 1e39, 10**400, -1, -1e-9, "1.5", "nan", True, [1.0]],
)
def test_thresholds_that_cannot_be(value: object) -> None:
    with pytest.raises(RequestError) as caught:
        check_threshold(value)
    message = caught.value.message
    assert message.startswith("The threshold is ")
    assert message.endswith("; expected a finite number of at least 0.")
    assert len(message) < 120
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [1, 4, np.int32(4)])
def test_counts(value: int) -> None:
    assert check_count(value, what="The batch") == value


@pytest.mark.parametrize("value", [0, -1, 1.0, float("nan"), "4", True, None])
def test_counts_that_cannot_be(value: object) -> None:
    with pytest.raises(RequestError, match=r"^The batch is .*; expected a whole number of at least 1\.$"):
        check_count(value, what="The batch")


@pytest.mark.parametrize("value", ["", None, 5, b"pill", ["pill"]])
def test_categories_that_cannot_be(value: object) -> None:
    with pytest.raises(RequestError, match=r"^The category is .*; expected the name of a published product"):
        check_category(value)


def test_a_client_says_that_its_category_is_no_name() -> None:
    with pytest.raises(RequestError, match=r"^The category is 5; "):
        JudgeClient("127.0.0.1:1", category=5, timeout_s=1)  # type: ignore[arg-type]
