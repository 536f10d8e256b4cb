"""What all tests share: one torch thread per process, and scikit-learn's digits as the small real data."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
import torch
from hypothesis import settings

from objectives.data.dataset import Dataset, load
from objectives.task import DataSpec

torch.set_num_threads(1)
# What is exported where the tests run decides none of them, and nothing of theirs stays in the user's own places.
for name in ("OPTUNA_STORAGE", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CUDA_VISIBLE_DEVICES", "PYTHONWARNINGS"):
    os.environ.pop(name, None)
ours = tempfile.mkdtemp(prefix="frontrunner-tests-")
atexit.register(shutil.rmtree, ours, ignore_errors=True)
os.environ |= {"XDG_CACHE_HOME": f"{ours}/cache", "FRONTRUNNER_RUN_DIR": f"{ours}/run"}
# Without a deadline, since the first example of a process pays for imports and kernels. The same examples every time:
# what a network of one channel behind several batch norms computes is chaos, and chance decides no test.
settings.register_profile("laws", deadline=None, derandomize=True)
settings.register_profile("chance", deadline=None)  # other examples every time: --hypothesis-profile=chance
settings.load_profile("laws")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """500 training and 328 validation images [1, 8, 8] in 10 classes."""
    return load(DataSpec("digits", n_train=500), torch.device("cpu"))
