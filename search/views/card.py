"""The data card in a terminal: a table of classes, what the images are, what should be known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from objectives.data.card import Card, ClassCard
from objectives.words import counted
from search.views.columns import columns, printed_width, wrapped

MOST_CLASSES = 24  # in the table; of more, the largest and the smallest ones
MOST_LISTED = 20  # files of a kind
EVEN = 1.05  # times the smallest class: less is no news


def lines(card: Card, width: int | None = None) -> list[str]:
    """The card in at most `width` columns, if names of files leave room for that."""
    width = width or printed_width()
    facts = [f"  {name:<11}{text}" for name, text in about(card)]
    said = [
        *wrapped(title(card), width),
        "",
        *_table(card, width),
        "",
        *(line for fact in facts for line in wrapped(fact, width, " " * 13)),
    ]
    for what, files in listed(card):
        rows = [f"{what}: {len(files)}", *(f"  {file}" for file in files[:MOST_LISTED])]
        rows += [f"  ... and {len(files) - MOST_LISTED} more"] if len(files) > MOST_LISTED else []
        said += ["", *(line for row in rows for line in wrapped(row, width))]
    said += [""] if card.warnings else []
    for warning in card.warnings:
        said += wrapped(f"warning: {warning}", width, "  ")
    return said


def title(card: Card) -> str:
    """What the data are, in a line."""
    parts = [f"{counted(card.n_train, 'image')} to train"]
    parts += [f"{card.n_val} to validate"] if card.n_val is not None else []
    parts += [f"{card.n_test} to test (not opened)"] if card.n_test is not None else []
    return f"{card.name}: {counted(len(card.classes), 'class')}, {', '.join(parts)}"


def about(card: Card) -> list[tuple[str, str]]:
    """(name, text) of what is known of the images as a whole."""
    least, median, most = card.sides
    large, small = (choose(card.classes, key=_images) for choose in (max, min))
    balance = f"{large.name} is the largest with {card.majority:.1%} of the images"
    if card.uneven >= EVEN:
        balance += f", {card.uneven:.1f} times those of {small.name}, the smallest"
    sides = f"shorter side {least}" if least == most else f"shorter side {least} to {most}, median {median}"
    sides += f" pixels, {card.not_square:.0%} not square"
    suggested = f"{card.suggested_size} pixels a side, in {'grey' if card.channels == 1 else 'colour'}"
    rows = [("balance", balance), ("sides", sides), ("pixels", _shares(card.modes))]
    rows += [("files", _shares(card.formats))] if card.formats else []
    rows += [("train at", suggested)]
    rows += [("memory", card.streamed)] if card.streamed else []
    rows += [("found", remark) for remark in card.remarks]
    rows += [] if card.size else [("copies", "not looked for: nothing was decoded")]
    return rows


def listed(card: Card) -> list[tuple[str, Sequence[str]]]:
    """(what, names) of files that somebody should look at."""
    kinds = {
        "cannot be used, left out": card.unreadable,
        "suspicious, but used": card.suspicious,
        "neither images nor known to be none, left out": card.unrecognised,
    }
    return [(what, files) for what, files in kinds.items() if files]


def shown(card: Card) -> list[tuple[ClassCard | None, float]]:
    """(class, its share of the images), in the order of names; None: classes that are left out here."""
    total = max(1, sum(map(_images, card.classes)))
    rows: list[tuple[ClassCard | None, float]] = [(each, _images(each) / total) for each in card.classes]
    if len(rows) <= MOST_CLASSES:
        return rows
    by_size = sorted(card.classes, key=_images, reverse=True)
    half = MOST_CLASSES // 2
    return [
        *((each, _images(each) / total) for each in by_size[:half]),
        (None, sum(map(_images, by_size[half:-half])) / total),
        *((each, _images(each) / total) for each in by_size[-half:]),
    ]


def _table(card: Card, width: int) -> list[str]:
    parts = {
        "train": True,
        "val": card.n_val is not None,
        "test": any(each.n_test is not None for each in card.classes),
    }
    names = [name for name, is_there in parts.items() if is_there]
    rows = []
    for each, share in shown(card):
        counts = {"train": each.n_train, "val": each.n_val, "test": each.n_test} if each else {}
        numbers = [str(counts.get(name) or 0) if each else "..." for name in names]
        words = each.name if each else f"{len(card.classes) - MOST_CLASSES} more classes"
        rows.append([*numbers, f"{share:.1%}", words])
    return columns([*names, "share", "class"], rows, width)


def _images(each: ClassCard) -> int:
    return each.n_train + (each.n_val or 0)


def _shares(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in tally.items())
