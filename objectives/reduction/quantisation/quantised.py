"""Networks whose weights are few bits: 8-bit affine, and values shared by k-means with their Huffman-coded size.

Weights are the tensors of two and more dimensions; biases, norms and statistics stay as they are. What comes back holds
what the bits stand for, so that it is evaluated and exported as any other network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from objectives.networks.network import Network
from objectives.reduction.quantisation import forms
from objectives.reduction.quantisation.forms import Affine, Form, Plain, Shared

LEVELS = 255  # steps between the smallest and the largest value of 8 bits
CONVOLUTION_BITS, DENSE_BITS = 8, 5  # of shared values (Han et al., ICLR 2016, section 3)
ROUNDS = 1000  # of k-means at most; 50 to 300 are taken
Ranges = Mapping[str, tuple[float, float]]  # smallest and largest value that a layer reads, by its name


@dataclass(frozen=True)
class Quantised:
    """A network of few bits."""

    model: Network  # on the CPU, in evaluation mode; its weights are what the bits stand for
    forms: Mapping[str, Form]  # of every parameter and buffer, by name

    @property
    def n_bytes(self) -> int:
        """Of the file that `forms.save` writes."""
        return len(forms.written(self.forms))

    def bits(self) -> dict[str, float]:
        """Bits that each weight takes on average, codebooks included, by the name of the weight tensor."""
        coded = {name: form for name, form in self.forms.items() if name in _weights(self.model)}
        return {name: 8 * forms.n_bytes(form) / form.tensor().numel() for name, form in coded.items()}


@dataclass(frozen=True)
class Sizes:
    """Bytes of a network on disk."""

    float32: int  # as `export` writes it
    eight_bit: int
    shared: int  # k-means and Huffman's code


def sizes(model: Network) -> Sizes:
    """Bytes of a network's parameters and buffers as they are, in 8 bits, and as shared values."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return Sizes(len(safetensors.torch.save(state)), eight_bit(model).n_bytes, shared(model).n_bytes)


def eight_bit(model: Network) -> Quantised:
    """The network with weights of 8 bits: affine, a scale per output channel (Jacob et al., CVPR 2018, section 2.1).

    A weight of 0 stays 0, and none moves by more than half a step of its channel.
    """
    return _quantised(model, {name: affine(weight) for name, weight in _weights(model).items()})


def shared(model: Network, convolution_bits: int = CONVOLUTION_BITS, dense_bits: int = DENSE_BITS) -> Quantised:
    """The network with at most 2^bits different values in each weight tensor, and 0 (Han et al., ICLR 2016).

    Weights of 0 are those of connections that were pruned: they stay 0. A tensor that would not become smaller stays as
    it is. What the paper trains of the values that are shared is left out: all data are seen by what comes before.

    Raises:
        ValueError: no bits.
    """
    if min(convolution_bits, dense_bits) < 0:
        raise ValueError(f"{convolution_bits} and {dense_bits} bits: 0 (one value a tensor) is the least")
    kernels = {id(layer.weight) for layer in model.convolutions()}
    made: dict[str, Form] = {}
    for name, weight in _weights(model).items():
        is_convolution = id(weight) in kernels
        bits = convolution_bits if is_convolution else dense_bits
        form, plain = clustered(weight, 2**bits, forms.GAP_BITS[is_convolution]), Plain(weight.detach().cpu())
        made[name] = form if forms.n_bytes(form) < forms.n_bytes(plain) else plain
    return _quantised(model, made)


def affine(weight: Tensor) -> Affine:
    """A weight [out, ...] as 8-bit levels, a scale and a zero per output channel."""
    rows = weight.detach().cpu().double().flatten(1)
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)  # 0 is a level
    scales = ((high - low) / LEVELS).float().double()
    steps = torch.where(scales > 0, scales, 1.0)
    zeros = (-low / steps).round().clamp(0, LEVELS)
    levels = ((rows / steps[:, None]).round() + zeros[:, None]).clamp(0, LEVELS)
    return Affine(levels.to(torch.uint8).view(weight.shape), steps.float(), zeros.to(torch.uint8))


def clustered(weight: Tensor, k: int, gap_bits: int) -> Shared:
    """A weight with at most `k` different values beside 0: the nearest ones of `centroids`."""
    values = weight.detach().cpu().float().numpy()
    codebook = centroids(values[values != 0], k)
    symbols = np.where(values != 0, 1 + nearest(values, codebook), 0)
    return Shared(torch.from_numpy(symbols), torch.from_numpy(codebook), gap_bits)


def centroids(values: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """[at most k] the means of clusters of `values` [n], ascending: k-means in one dimension by Lloyd's rounds.

    They begin evenly between the smallest and the largest value, which keeps the few large ones (Han et al., section
    3.2). Values are sorted once and clusters are intervals of them: a round takes k searches, where scikit-learn's
    takes n k distances. No more than k different values are clusters of their own.
    """
    different = np.unique(values)
    if len(different) <= k:
        return different
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means, borders = np.linspace(ordered[0], ordered[-1], k), np.full(k + 1, -1)
    for _ in range(ROUNDS):
        inner = np.searchsorted(ordered, (means[1:] + means[:-1]) / 2)
        found = np.concatenate([[0], inner, [len(ordered)]])
        if np.array_equal(found, borders):
            break
        borders, counts = found, np.diff(found)
        means = np.where(counts > 0, np.diff(sums[borders]) / np.maximum(counts, 1), means)
    return np.unique(means[np.diff(borders) > 0].astype(np.float32))


def nearest(values: npt.NDArray[np.float32], codebook: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The position in an ascending codebook [k] of what is nearest to each value."""
    exact = codebook.astype(np.float64)
    return np.searchsorted((exact[1:] + exact[:-1]) / 2, values.astype(np.float64))


@torch.no_grad()
def ranges(model: Network, x: Tensor) -> Ranges:
    """What the layers with weights read, smallest and largest value by name, over images x: training images."""
    found: dict[str, tuple[float, float]] = {}

    def seen(name: str, values: Tensor) -> None:
        low, high = (float(end) for end in values.aminmax())
        known = found.get(name, (0.0, 0.0))
        found[name] = min(known[0], low), max(known[1], high)

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen(name, inputs[0]))
        for name, layer in _layers(model).items()
    ]
    try:
        model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def eight_bit_inputs(model: Network, known: Ranges) -> Iterator[None]:
    """The network with what its layers read rounded to 8 bits, one scale a layer, for as long as the block lasts.

    Sums stay fp32, as integer sums of 32 bits would be exact. What lies outside of the known range is cut off.
    """
    hooks = []
    for name, layer in _layers(model).items():
        low, high = known[name]
        step = (high - low) / LEVELS or 1.0
        zero = round(-low / step)

        def rounded(_: nn.Module, inputs: tuple[Tensor], step: float = step, zero: int = zero) -> tuple[Tensor]:
            return (torch.fake_quantize_per_tensor_affine(inputs[0], step, zero, 0, LEVELS),)

        hooks.append(layer.register_forward_pre_hook(rounded))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.dim() > 1}


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold those weights."""
    return {name: model.get_submodule(name) for name in (each.rpartition(".")[0] for each in _weights(model))}


def _quantised(model: Network, weights: Mapping[str, Form]) -> Quantised:
    state = {name: Plain(tensor.detach().cpu().clone()) for name, tensor in model.state_dict().items()}
    made = {**state, **weights}
    copy = deepcopy(model).cpu().eval()
    copy.load_state_dict({name: form.tensor() for name, form in made.items()})
    return Quantised(copy, made)
