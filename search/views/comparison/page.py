"""Two fronts compared, as one HTML page that needs nothing else: how, see `search.views.report.offline`."""

from __future__ import annotations

from pathlib import Path

from search.views.comparison import words
from search.views.comparison.compared import Comparison
from search.views.drawing import overlay
from search.views.report import offline

HERE = Path(__file__).parent


def page(found: Comparison) -> str:
    """The page."""
    figure = overlay.figure(found.a.now, found.b.now, (found.a.name, found.b.name))
    figure.update_layout(title=None, margin={"t": 14, "b": 10}, showlegend=False)
    return (
        offline.environment(HERE)
        .get_template("comparison.html")
        .render(
            **{"found": found, "kind": found.a.now.kind, "resampled": words.RESAMPLED},
            sentences=words.sentences(found),
            within=words.within_rows(found),
            moved=words.moved_rows(found),
            **offline.trusted({"fronts": figure}),
        )
    )
