"""`Layer`: a layer where it stands in a network, for all that asks what a network costs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Of convolution: kernel, stride, pixels a side of what it reads; padding and dimensions where it is not one of images
# that is padded by half its kernel.
Kind = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer where it stands in a network: all that its work and its memory depend on.

    A dense layer is a convolution without padding whose kernel is as large as what it reads.
    """

    kernel: int  # pixels: side
    stride: int
    n_in: int  # channels
    n_out: int  # channels
    side: int  # pixels: of the square images that it reads, or the length of series
    reads: str | None  # label of the axis of its inputs; None: the image
    writes: str  # label of the axis of its outputs
    padding: int | None = None  # pixels at each border; None: half the kernel
    dims: Literal[1, 2] = 2  # of what it reads: series or images
    is_dense: bool = False
    is_pooled: bool = False  # a max-pooling of 3x3 pixels at a stride of 2 stands behind it, as behind the stem

    @property
    def kind(self) -> Kind:
        """What decides which pixels meet which taps."""
        plain = self.kernel, self.stride, self.side
        return plain if self.padding is None and self.dims == 2 else (*plain, self._border, self.dims)

    @property
    def _border(self) -> int:
        return self.kernel // 2 if self.padding is None else self.padding

    @property
    def taps(self) -> int:
        """Weights of a kernel."""
        return int(self.kernel**self.dims)

    @property
    def side_out(self) -> int:
        """Pixels a side of what it puts out."""
        return (self.side + 2 * self._border - self.kernel) // self.stride + 1

    @property
    def outputs(self) -> int:
        """Values that it puts out for an image."""
        return self.n_out * int(self.side_out**self.dims)

    @property
    def flops(self) -> int:
        """FLOPs of a forward pass over an image; 1 multiply-add = 2 FLOPs."""
        return 2 * self.taps * self.n_in * self.outputs

    @property
    def pooled(self) -> int:
        """Values for an image that the pooling behind it puts out; 0 where there is none."""
        return self.n_out * int((-(-self.side_out // 2)) ** self.dims) if self.is_pooled else 0
