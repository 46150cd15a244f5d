"""Other people's checkpoints and requests: what disagrees, and what is no such file."""

import pytest

from tests.faults import checkpoints
from tests.faults.harness import check_all


def test_a_few_that_disagree() -> None:
    check_all("precedence", checkpoints.POINT_7, few=3, honest=checkpoints.honest)


def test_a_few_damaged() -> None:
    check_all("checkpoints", checkpoints.POINT_10, count=180, few=6, honest=checkpoints.honest)


@pytest.mark.slow
def test_many_that_disagree() -> None:
    check_all("precedence", checkpoints.POINT_7, honest=checkpoints.honest)


@pytest.mark.slow
def test_many_damaged() -> None:
    check_all("checkpoints", checkpoints.POINT_10, count=180, honest=checkpoints.honest)
