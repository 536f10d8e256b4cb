"""A database as this program opens it keeps Optuna's own laws of storages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.testing.pytest_storages import StorageTestCase

from search.database import storage


class TestOptunasLaws(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[RDBStorage]:
        database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
        yield database.optuna
        database.optuna.engine.dispose()
