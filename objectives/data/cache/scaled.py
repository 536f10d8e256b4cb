"""Images of a data set with a name at another size, where memory does not hold them: a file of the cache does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from objectives.data.cache import shards
from objectives.data.cache.kept import IMAGES, alone
from objectives.data.cache.shards import ABOUT, PIXELS, ROW, ROWS
from objectives.data.cache.stored import Array, Stored
from objectives.data.sources import cache_home
from objectives.host import durable

WHOSE = "images of a data set with a name, at another size"  # what the cache says of them


def scaled(of: tuple[str, int, int, int], parts: Iterator[Array]) -> Stored | None:
    """Images [n, size, size, channels] from the cache, written there part by part where they are not; None: nowhere.

    `of`: (digest of what they were, n, size, channels).
    """
    home = cache_home()
    if home is None:
        return None
    _, n, size, channels = of
    folder = home / IMAGES / shards.name(size, hashlib.sha256(json.dumps(of).encode()).hexdigest())
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.parent):
            if shards.opened(folder) is None:
                with durable.new_folder(folder) as partial:
                    with (partial / PIXELS).open("wb") as file:
                        shards.write_head(file, (n, size, size, channels))
                        for part in parts:
                            file.write(np.ascontiguousarray(part).data)
                    np.save(partial / ROWS, np.zeros(n, ROW))
                    (partial / ABOUT).write_bytes(shards.about(folder, WHOSE, {}))
            os.utime(folder)
            return Stored.at(folder / PIXELS)
    return None
