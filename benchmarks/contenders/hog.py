"""Histograms of oriented gradients (Dalal & Triggs 2005) in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_ORIENTATIONS = 9  # bins over half a turn: the sign of a gradient does not count
BLOCK = 2  # cells: side of a block
CLIP = 0.2  # of a normalised block, before it is normalised again ("L2-hys", section 6.4)
EPSILON = 1e-3  # beside the norm of a block: gradients are of pixels in [0, 1]
AT_ONCE = 256  # images: bounds the memory

Floats = npt.NDArray[np.float32]


def hog(pixels: npt.NDArray[np.uint8], cell: int) -> Floats:
    """Descriptors [n, blocks * 36] of images [n, height, width, channels], with cells of `cell` pixels.

    Section 6: centred differences without smoothing, of colour the channel with the largest gradient; a pixel votes
    for the two nearest orientations. Blocks overlap by a cell. Departure: no vote for neighbouring cells, no Gaussian
    window over a block. Pixels beyond the last whole cell are left out.
    """
    return np.concatenate([_hog(pixels[i : i + AT_ONCE], cell) for i in range(0, len(pixels), AT_ONCE)])


def _hog(pixels: npt.NDArray[np.uint8], cell: int) -> Floats:
    histograms = _histograms(*_gradients(pixels.astype(np.float32) / 255), cell)
    n, rows, columns, _ = histograms.shape
    blocks = np.concatenate(
        [
            histograms[:, i : rows - BLOCK + 1 + i, j : columns - BLOCK + 1 + j]
            for i in range(BLOCK)
            for j in range(BLOCK)
        ],
        axis=-1,
    )
    clipped = np.minimum(_normalised(blocks), CLIP)
    return _normalised(clipped).reshape(n, -1)


def _gradients(x: Floats) -> tuple[Floats, Floats]:
    """(down, right): [n, height, width] of the channel that changes most there; 0 across an edge of the image."""
    down, right = np.zeros_like(x), np.zeros_like(x)
    down[:, 1:-1] = x[:, 2:] - x[:, :-2]
    right[:, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2]
    most = (down**2 + right**2).argmax(-1)[..., None]
    return np.take_along_axis(down, most, -1)[..., 0], np.take_along_axis(right, most, -1)[..., 0]


def _histograms(down: Floats, right: Floats, cell: int) -> Floats:
    """[n, rows, columns, orientations] of cells: magnitudes by orientation, each shared by the two nearest bins."""
    n, height, width = down.shape
    rows, columns = height // cell, width // cell
    position = np.arctan2(down, right) / np.pi % 1 * N_ORIENTATIONS - 0.5  # 0 is the centre of the first bin
    lower = np.floor(position)
    share, magnitude = position - lower, np.hypot(down, right)
    binned = np.zeros((n, rows, columns, N_ORIENTATIONS), np.float32)
    for offset, votes in ((0, magnitude * (1 - share)), (1, magnitude * share)):
        chosen = (lower + offset) % N_ORIENTATIONS
        for orientation in range(N_ORIENTATIONS):
            mine = np.where(chosen == orientation, votes, 0)[:, : rows * cell, : columns * cell]
            binned[..., orientation] += mine.reshape(n, rows, cell, columns, cell).sum((2, 4))
    return binned


def _normalised(blocks: Floats) -> Floats:
    return blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + EPSILON**2)
