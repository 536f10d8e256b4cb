"""What all tests share: one torch thread per process, and scikit-learn's digits as the small real data."""

from __future__ import annotations

import atexit
import os
import re
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


# What takes seconds and has a relative that `make test` runs: with these it took fourteen minutes on two cores.
DEAR = re.compile(
    r"test_laws\.py.*(?<!PruneTrain)(?<!Net2Net)(?<!Swa) on (lenet300|vgg)"
    r"|test_fast_executors\.py.*eager_one_does\[({rare})\]"
    r"|test_interchange\.py::test_onnx_takes.*\[(?!PruneTrain|Whitening|WeightNorm)"
    r"|test_knobs\.py::test_what_one_space_settles|test_spaces\.py::test_the_walk_tells"
    r"|test_startup\.py::test_every_strategy_is_tried.*-structure"
    r"|test_sizes\.py::test_every_size_trains.*n_images=20"
    r"|test_queue\.py::test_of_a_claim_whose_answer_is_lost.*True"
    r"|test_reduce\.py::test_(a_network_that_was_lost|an_exported_network_is_made|interrupted_between|a_study_that_was)"
    r"|test_minutes\.py::test_(a_training_on_all_images_ends|interrupted_it_leaves)"
    r"|test_plain_studies\.py::test_a_study_makes.*lenet5"
    r"|test_run\.py::test_what_cannot_be_done.*(n-train|cuda:77)"
    r"|test_process\.py::test_(a_training_that_raises|a_halted_worker)".format(
        rare="|".join(
            [
                *("AveragePooling", "BatchGrowth", "BlockFloatingPoint", "ColumnRowSampling", "DynamicFixedPoint"),
                *("FixedPoint", "Float8", "GradientApproximation", "GradientClipping", "PrunedActivationGradients"),
                *("RegimeAdaptation", "S3Pool", "StandardizationLoss", "StochasticPooling", "StructureAndStrength"),
            ]
        )
    )
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DEAR.search(item.nodeid):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """500 training and 328 validation images [1, 8, 8] in 10 classes."""
    return load(DataSpec("digits", n_train=500), torch.device("cpu"))
