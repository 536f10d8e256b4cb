"""Huffman's code (Huffman 1952), in its canonical form: lengths alone say which code it is. Imports no torch."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

LONGEST = 57  # bits of a code: what eight bytes show from any bit of the first on. More takes 10^11 symbols
AT_ONCE = 1 << 17  # bytes that are looked at together when decoding


def lengths(counts: Integers) -> Integers:
    """[k] bits of the code of every symbol that occurs `counts` [k] times: 0 for one that never does.

    A symbol that is alone has a bit, which is not written.
    """
    alive = np.flatnonzero(counts)
    found = np.zeros(len(counts), np.int64)
    if len(alive) < 2:
        found[alive] = 1
        return found
    heap = [(int(counts[symbol]), number, number) for number, symbol in enumerate(alive)]  # count, age, node
    heapq.heapify(heap)
    parents = [0] * (2 * len(alive) - 1)
    for node in range(len(alive), len(parents)):
        (one, _, first), (other, _, second) = heapq.heappop(heap), heapq.heappop(heap)
        parents[first] = parents[second] = node
        heapq.heappush(heap, (one + other, node, node))
    depths = [0] * len(parents)
    for node in reversed(range(len(parents) - 1)):  # the root is the last node
        depths[node] = depths[parents[node]] + 1
    found[alive] = depths[: len(alive)]
    return found


def encoded(symbols: Integers, bits: Integers) -> bytes:
    """Symbols [n] one after the other, filled up with zeros to whole bytes; each must have a code in `bits` [k]."""
    order, codes = _canonical(bits)
    if len(order) < 2 or not len(symbols):
        return b""
    by_symbol = np.zeros(len(bits), np.uint64)
    by_symbol[order] = codes
    ends = np.cumsum(bits[symbols])
    stream = np.zeros(ends[-1], np.uint8)
    for back in range(1, int(bits.max()) + 1):  # from the last bit of a code on
        has = bits[symbols] >= back
        stream[ends[has] - back] = (by_symbol[symbols[has]] >> np.uint64(back - 1)) & np.uint64(1)
    return np.packbits(stream).tobytes()


def decoded(content: bytes, bits: Integers, n: int) -> Integers:
    """The `n` symbols that `encoded` wrote.

    Raises:
        ValueError: no code has these lengths, or the content is too short.
    """
    order, codes = _canonical(bits)
    if len(order) < 2:
        if n and not len(order):
            raise ValueError(f"{n} symbols are said to be there, but none has a code: the content is damaged")
        return np.full(n, order[0] if n else 0, np.int64)
    sizes = bits[order]
    starts = codes << (64 - sizes).astype(np.uint64)  # as the first bits of a window of 64
    found: list[int] = []
    position, end = 0, 8 * len(content)
    for first, windows in _windows(content):
        places = np.searchsorted(starts, windows, side="right") - 1
        steps, known = sizes[places].tolist(), places.tolist()
        at = position - first
        while at < len(known) and len(found) < n:
            found.append(known[at])
            at += steps[at]
        position = first + at
    if len(found) < n or position > end:
        raise ValueError(f"{len(found)} of {n} symbols are there: the content was cut off")
    return order[np.array(found, np.int64)]


def _canonical(bits: Integers) -> tuple[Integers, npt.NDArray[np.uint64]]:
    """(symbols that occur, shorter codes first, and of equals the smaller symbol; their codes)."""
    order = np.lexsort((np.arange(len(bits)), bits))
    order = order[bits[order] > 0]
    if len(order) < 2:
        return order, np.zeros(len(order), np.uint64)
    longest = int(bits.max())
    shares = np.uint64(1) << (longest - bits[order]).astype(np.uint64) if longest <= LONGEST else np.zeros(1, np.uint64)
    if int(shares.sum()) != 1 << longest:
        raise ValueError("no Huffman code has these lengths: the content is damaged")
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(shares)[:-1]])
    codes: npt.NDArray[np.uint64] = np.right_shift(before, (longest - bits[order]).astype(np.uint64))
    return order.astype(np.int64), codes


def _windows(content: bytes) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """(number of its first bit, the 64 bits from every bit of it on) of one part of the content after another.

    Of these the first `LONGEST` are those of the content.
    """
    data = np.frombuffer(content + bytes(8), np.uint8).astype(np.uint64)
    for start in range(0, len(content), AT_ONCE):
        stop = min(start + AT_ONCE, len(content))
        words = np.zeros(stop - start, np.uint64)
        for byte in range(8):
            words |= data[start + byte : stop + byte] << np.uint64(56 - 8 * byte)
        yield 8 * start, (words[:, None] << np.arange(8, dtype=np.uint64)).ravel()
