"""What a word for a start names: a folder of an export, a file of weights, torchvision:NAME."""

from __future__ import annotations

from objectives.starts.origin import Origin, exported_origin, is_export, resolved, stamp


def origin(word: str) -> Origin:
    """What is known of the network that `word` names.

    Raises:
        ValueError: there is none, or it is damaged, in one line.
    """
    source = resolved(word)
    if is_export(source):
        return exported_origin(source, stamp(source))
    from objectives.starts.start import read  # torch reads the weights of others

    return read(source).origin


def found(word: str) -> Origin | None:
    """The same, or None where nothing is there, or nothing that can be read."""
    try:
        return origin(word)
    except ValueError:
        return None
