"""Names of ways to round. Imports no torch."""

from typing import Literal

RoundingName = Literal["nearest", "stochastic"]
Float8Name = Literal["e4m3", "e5m2"]
