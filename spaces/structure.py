"""Methods that change what a network is made of, at most one in a pipeline: a space for those who compare them.

They are offered in turn, each where none before it was chosen, so that draws at random have the first ones most often;
our sampler tries each twice before a model leads. All else is as in the default space. Pipelines without any are the
control. FixedArchitecture, the network that such a method ended with from scratch, is no choice here: nobody can draw
it before the method has run.
"""

from __future__ import annotations

from objectives.pipeline import Pipeline
from spaces import acceleration
from spaces.base import Given, Narrowed, Parameters, Trial
from spaces.ingredients import EVERYTHING
from spaces.run import Ingredients

METHODS = ("adaptive", "grow", "morph", "lottery", "lowrank", "prune")
INGREDIENTS: Ingredients = {switch: EVERYTHING[switch] for switch in METHODS}


def sample(trial: Trial, given: Given) -> Pipeline:
    """A pipeline with one such method, or with none."""
    return acceleration.pipeline(Narrowed(trial, acceleration.left(given)), given, INGREDIENTS, most=1)


def anchors(given: Given) -> dict[str, Parameters]:
    """Those of the default space that lie in this one."""
    known = acceleration.known(given, INGREDIENTS)
    foreign = set(EVERYTHING) - set(INGREDIENTS)
    return {
        name: {key: value for key, value in parameters.items() if key.partition(".")[0] not in foreign}
        for name, parameters in known.items()
        if not any(parameters.get(switch) for switch in foreign)
    }
