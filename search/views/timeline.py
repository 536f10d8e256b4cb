"""How networks came to their size: the timelines of trials as cells of a table."""

from __future__ import annotations

from search.study.records import Moment

COLUMNS = ("epoch", "seconds", "widths", "blocks", "MFLOP", "accuracy", "decision")


def cells(moment: Moment) -> list[str]:
    """A row of a table: the network that an epoch trained, its blocks a stage, and what was decided after it."""
    return [
        str(moment.epoch),
        f"{moment.train_seconds:.2f}",
        moment.architecture,
        "-".join(map(str, moment.blocks)),
        f"{moment.inference_flops / 1e6:.2f}",
        f"{moment.val_accuracy:.2%}",
        moment.words,
    ]
