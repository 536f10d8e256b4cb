"""Trains a pipeline anew on images of choice: frontrunner train --pipeline FOLDER --data folder:DIR -o FOLDER.

The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.task import Task
    from search.invocation import Retraining
    from search.study.files.recipes import Recipe
    from search.workers.seam import Training

LIMITS = ("trial", "under_seconds", "under_mflop", "min_accuracy")


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Trains what was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what it trains with; networks on a device unless another is given.
    """
    from search.commands.exits import OK, exit_code
    from search.database import storage
    from search.invocation import Retraining
    from search.workers.seam import preparation

    url = storage.url(options.storage, None)

    def train() -> int:
        from search import training as trainings

        asked = Retraining(**vars(options))
        found, known = _of_study(options, url) if asked.study is not None else (_named(asked), None)
        trainings.train(asked, found, known, training or preparation)
        return OK

    return exit_code(train, url)


def _named(asked: Retraining) -> Recipe:
    """What a folder or file says.

    Raises:
        UsageError, DataError: it says nothing that can be trained.
    """
    from search.errors import UsageError
    from search.study.files.recipes import recipe

    assert asked.pipeline is not None  # its parser sees to it
    if given := [name for name in LIMITS if getattr(asked, name) is not None]:
        flag = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{flag} chooses from the front of a study: name that with --study, in place of --pipeline")
    if asked.data is None:
        raise UsageError("--data is missing: a folder of images, digits, fashion_mnist, cifar10 or cifar100")
    return recipe(asked.pipeline)


def _of_study(options: argparse.Namespace, url: str) -> tuple[Recipe, Task]:
    """(a pipeline of a study, what it was found on).

    Raises:
        UsageError: there is none such.
        StorageError: the study cannot be read.
    """
    from search.commands.networks import best
    from search.errors import UsageError
    from search.study import opening, records
    from search.study.files.recipes import Recipe

    now = best.read(options.study, url)
    with opening.understood(now.name):
        if not now.kind.trains:
            raise UsageError(f"study {now.name!r} makes a network smaller: frontrunner reduce does that again")
        if not now.kind.is_timed:
            raise UsageError(f"study {now.name!r} minimises {now.kind.words}: what is trained is timed by a clock")
        number = best.asked(now, options).best.trial if options.trial is None else options.trial
        if number >= len(now.trials) or records.PIPELINE not in now.trials[number].user_attrs:
            raise UsageError(f"study {now.name!r} has trained no trial {number}: it has {len(now.trials)} trials")
        trial, task = now.trials[number], now.spec.task
        accuracies = {name: trial.user_attrs.get(name) for name in ("accuracy", "balanced_accuracy")}
        made = Recipe(
            now.pipeline(trial),
            task.family,
            task.stem_stride,
            task.data.size,
            task.test_time_flip,
            now.spec.metric,
            task.data.seed,
            {"data": now.attributes[records.IDENTITY]["data"], **accuracies, "study": now.name, "trial": number},
        )
        return made, task
