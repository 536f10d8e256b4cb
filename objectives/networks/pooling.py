"""What halves images: a wavelet transform, and poolings, where 2x2 pixels become one, or behind the stem 3x3.

Some poolings draw while training; in evaluation none does. They draw from the default generator of the device, and
wait for nothing: a captured step draws anew each time that it is replayed. Odd sides are rounded up, as by a stride of
2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.networks.architecture import Downsampling


def haar(x: Tensor) -> Tensor:
    """The Haar wavelet transform, [batch, channels, height, width] to [batch, 4 channels, height / 2, width / 2].

    Orthonormal, so nothing is lost; images with an odd side are padded by their border.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    top, bottom = x[:, :, ::2], x[:, :, 1::2]
    high, low = top - bottom, top + bottom
    parts = [sign * half[..., 1::2] + half[..., ::2] for half in (low, high) for sign in (1, -1)]
    return torch.cat(parts, 1).mul_(0.5).contiguous(memory_format=torch.channels_last)


def stem_pooling(x: Tensor) -> Tensor:
    """The largest of each 3x3 pixels, at every second one: behind the stem of networks for large images."""
    return F.max_pool2d(x, 3, 2, 1)


def halving(how: Downsampling, like: Tensor, *, training: bool) -> Callable[[Tensor], Tensor]:
    """What halves maps of the size of `like`: [batch, channels, height, width], all that it is called with alike."""
    if how.method == "average":
        return average
    if how.method == "stochastic":
        return stochastic if training else weighted
    if not training:
        return expected_s3
    places = [sampled(side, how.strips, like.device) for side in like.shape[2:]]
    return partial(s3, rows=places[0], columns=places[1])


def average(x: Tensor) -> Tensor:
    """The mean of each 2x2 pixels, at an odd border of those that there are.

    Twice that is what is left of a Haar transform of two levels whose finer one is dropped and the other one inverted
    (wavelet pooling, Williams & Li 2018), and the factor is lost in the batch norms behind.
    """
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def stochastic(x: Tensor) -> Tensor:
    """One of each 2x2 pixels, drawn with the share that it has of their sum; 0 where all are (Zeiler & Fergus 2013).

    Negative values count as 0: a rectifier comes first. Of every image, channel and region on its own.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # what has no share is never drawn
    pixels = [x[:, :, row::2, column::2].relu() for row in (0, 1) for column in (0, 1)]
    shares = [pixel.detach().to(torch.promote_types(x.dtype, torch.float32)) for pixel in pixels]
    upto = [shares[0]]
    for share in shares[1:]:
        upto.append(upto[-1] + share)
    at = torch.rand_like(upto[-1]) * upto[-1]
    found = pixels[3]
    for pixel, end in zip(pixels[2::-1], upto[2::-1], strict=True):
        found = torch.where(at < end, pixel, found)
    return found


def weighted(x: Tensor) -> Tensor:
    """The expectation of `stochastic`: every pixel times its share of the 2x2 (Zeiler & Fergus 2013, section 3.2)."""
    x = x.relu()
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # the squares of fp16 overflow from 256 on
    total = average(wide)
    return torch.where(total > 0, average(wide * wide) / total, 0.0).to(x.dtype)


def s3(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A max-pooling of 2x2 pixels and stride 1 where sampled rows and columns cross (S3Pool, Zhai et al. 2017).

    The windows reach right and down. Computed only there: half of the rows, then half of the columns.
    """
    x = x.permute(0, 2, 3, 1)  # of channels_last no copy: pixels are gathered with all their channels
    for dim, places in ((1, rows), (2, columns)):
        after = (places + 1).clamp(max=x.shape[dim] - 1)
        x = torch.maximum(x.index_select(dim, places), x.index_select(dim, after))
    return x.permute(0, 3, 1, 2)


def expected_s3(x: Tensor) -> Tensor:
    """What `s3` is replaced by in evaluation: the mean of each 2x2 of those maxima.

    Its expectation where a strip is 2 pixels wide; of wider strips the mean of what is expected in a strip.
    """
    return average(F.max_pool2d(x, 2, 1, padding=1)[:, :, 1:, 1:])


def sampled(side: int, strips: int, device: torch.device) -> Tensor:
    """[side / 2, rounded up] int64 ascending: rows or columns, of each strip half of them at random.

    A strip is as wide as makes that many of the side, an even number of pixels; the last one has what is left.
    """
    width = min(side, 2 * -(-side // (2 * strips)))
    whole = side - side % width
    found = []
    for start, end, wide in ((0, whole, width), (whole, side, side - whole)):
        if start < end:
            keys = torch.rand((end - start) // wide, wide, device=device)
            within = keys.argsort(1)[:, : -(-wide // 2)].sort(1).values
            found.append((within + torch.arange(start, end, wide, device=device)[:, None]).flatten())
    return torch.cat(found)
