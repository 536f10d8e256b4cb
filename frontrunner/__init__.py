"""A study's front, and its networks, in Python: what the commands `best` and `predict` do, for notebooks.

    study = frontrunner.load("birds")
    study.best(under_seconds=60).model().predict("new/")

What cannot be done is a ValueError of one line. torch is not imported before a `Model` is loaded.
"""

from frontrunner.fronts import Effect, Front, Point, Study, load
from frontrunner.models import Model, Prediction, Predictions

__all__ = ["Effect", "Front", "Model", "Point", "Prediction", "Predictions", "Study", "load"]
