"""Pages that need no network: templates that escape everything, figures that lie in them, and what a browser may run.

Names of studies, classes, data and messages are strangers': marks of direction are written as escapes, and the policy
of a page runs its own two scripts and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.words import inert
from search.views.page import STYLE

if TYPE_CHECKING:
    import jinja2
    import plotly.graph_objects as go
    from markupsafe import Markup

HERE = Path(__file__).parent


def environment(*folders: Path) -> jinja2.Environment:
    """What renders the templates of folders."""
    import jinja2

    loader = jinja2.FileSystemLoader(folders)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown)


def trusted(figures: Mapping[str, go.Figure]) -> dict[str, object]:
    """What is ours in a page, as it stands there: its style, its figures, its scripts, and what its policy runs."""
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), (HERE / "report.js").read_text()]
    return {
        "style": _markup(STYLE.read_text() + (HERE / "report.css").read_text()),
        "figures_json": _markup(_inlined(figures)),
        "scripts": list(map(_markup, scripts)),
        "policy": _policy(scripts),
    }


def untitled(figures: Mapping[str, go.Figure]) -> None:
    """Takes titles and legends from figures: in a page they stand around them."""
    for figure in figures.values():
        figure.update_layout(title=None, margin={"t": 14, "b": 10}, showlegend=False)


def _shown(value: object) -> object:
    """A value as it is written: what is no markup of ours cannot turn what stands around it."""
    return inert(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _markup(text: str) -> Markup:
    """Text of ours, that stands in the page as it is."""
    from markupsafe import Markup

    return Markup(text)


def _inlined(figures: Mapping[str, go.Figure]) -> str:
    """Figures as JSON that cannot end the element which it stands in."""
    plain = ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in figures.items())
    escapes = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
    return f"{{{plain}}}".translate(escapes)


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may do for the page: run these scripts, show what lies in it."""
    sums = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    runs = " ".join(f"'sha256-{each}'" for each in sums)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {runs}"
