"""What all tests share: one torch thread per process, and scikit-learn's digits as the small real data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from objectives.data.dataset import Dataset, load
from objectives.task import DataSpec

torch.set_num_threads(1)
settings.register_profile("laws", deadline=None)  # the first example of a process pays for imports and kernels
settings.load_profile("laws")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """500 training and 300 validation images [1, 8, 8] in 10 classes."""
    return load(DataSpec("digits", n_train=500), torch.device("cpu"))
