"""The data card as one HTML page that needs nothing else. Names of files and classes are strangers': all is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from objectives.data.card import Card
from search.views import card as view

TEMPLATE = Path(__file__).with_name("card.html")
STYLE = Path(__file__).with_name("style.css")  # of all pages


def page(card: Card, pictures: Mapping[str, Sequence[bytes]]) -> str:
    """The page; `pictures`: JPEG files by class."""
    import jinja2
    import markupsafe

    inlined = {name: list(map(picture, of_class)) for name, of_class in pictures.items()}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE.read_text())
    shown = {
        "title": view.title(card),
        "rows": view.shown(card),
        "about": view.about(card),
        "listed": view.listed(card),
    }
    style = markupsafe.Markup(STYLE.read_text())  # ours
    return template.render(card=card, pictures=inlined, most=view.MOST_LISTED, style=style, **shown)


def picture(jpeg: bytes) -> str:
    """A JPEG file as the address of an image that lies in the page itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
