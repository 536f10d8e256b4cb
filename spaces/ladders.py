"""Known-good pipelines by data set, from the fastest useful one to the most accurate: fronts of our own studies.

A rung is what differs from BASELINE, as parameters of the space `acceleration`.
"""

from __future__ import annotations

from spaces.base import Parameters

LADDERS: dict[str, dict[str, Parameters]] = {}
