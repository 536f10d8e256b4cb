"""What a study file asks for that its data, or its space, have no room for: told when the study is created."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from search.proposals.draws import Draw
from search.study.spec import StudySpec
from spaces import SPACES
from spaces.base import Given, Trial
from spaces.restricted import sample

N_DRAWS = 100  # by which it is told how much of a space follows what a study file fixes


def unheeded(spec: StudySpec, given: Given) -> list[str]:
    """What a study does not follow, or only in part, of what its file says, a line each."""
    return [*_batches(spec, given), *_switches(spec, given)]


def _batches(spec: StudySpec, given: Given) -> list[str]:
    """That all batches are smaller than the least that is asked for: none is larger than the training set."""
    asked, (_, most) = spec.space.batch_size, given.batch_size
    if not spec.what.trains or asked[0] <= most:
        return []
    return [
        f"[space] batch_size = {list(asked)}: no batch is larger than the {given.n_train} images to train, so that all "
        f"pipelines but BASELINE take {most}, the largest power of two below: name a range up to that to search it"
    ]


def _switches(spec: StudySpec, given: Given) -> list[str]:
    """What `[space.fix]` switches on that part of the space has no room for."""
    switches = [name for name, value in spec.space.fix.items() if value is True]
    restrictions, rng = replace(spec.restrictions, fix={}), np.random.default_rng(0)
    draws = [Draw(rng, settled=spec.space.fix) for _ in range(N_DRAWS if switches else 0)]
    for draw in draws:
        sample(SPACES[spec.space.name], cast("Trial", draw), given, restrictions)
    counts = {name: sum(name in draw.params for draw in draws) for name in switches}
    return [
        f"[space.fix] {name} = true holds in {n} of {N_DRAWS} pipelines drawn at random: in the others it has nothing "
        "to act on; longer or larger ones have"
        for name, n in counts.items()
        if n < N_DRAWS
    ]
