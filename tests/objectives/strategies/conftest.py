"""Which of the laws' many cases `make test` leaves to `make test-all`."""

from __future__ import annotations

import re

import pytest

from tests.objectives.strategies.cases import STOOD_FOR


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks cases of the laws that another one stands for."""
    for item in items:
        if item.path.name in ("test_laws.py", "test_fast_executors.py") and re.search(STOOD_FOR, item.name):
            item.add_marker(pytest.mark.long)
