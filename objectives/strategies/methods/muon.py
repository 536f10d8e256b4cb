"""Muon for convolutions, SGD for all else, as one optimizer: `MuonSGD`. From the published formulas (Jordan 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.sgd import sgd

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic: steepest at 0, so that five steps suffice
STEPS = "newton_schulz_steps"  # option of the groups that Muon updates


class MuonSGD(SGD):
    """SGD whose groups with the option `newton_schulz_steps` are updated by Muon.

    There a parameter [out, in, height, width] is a matrix [out, in * height * width]. Its step is the Nesterov momentum
    made orthogonal, times the learning rate: all directions are learned at one speed, and the size of the gradient
    plays no part. Weight decay shrinks the weights themselves: added to a gradient it would lose its size. With the
    option `keep_norm`, the Frobenius norm of the matrix stays as it was. torch.optim.Muon takes matrices only.

    Learning rates may be tensors. Under a GradScaler a step that must be skipped changes nothing, and the host does not
    wait to find out.
    """

    _step_supports_amp_scaling = True  # on the class: a copied optimizer loses the attribute that SGD sets

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every group. Takes no closure."""
        if closure is not None:
            raise ValueError("MuonSGD takes no closure: compute the gradients before the step")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if STEPS not in group:
                self._descend(group, parameters)
                continue
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in parameters:
                alike.setdefault((*parameter.shape[:1], parameter[0].numel()), []).append(parameter)
            for batch in alike.values():
                self._orthogonal(group, batch)

    def _descend(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        """Plain SGD: what the base class does with a group."""
        buffers = [self.state[parameter].get("momentum_buffer") for parameter in parameters if group["momentum"]]
        options = ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize", "foreach", "fused")
        sgd(
            parameters,  # type: ignore[arg-type]
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            buffers,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            **{option: group[option] for option in options},
        )
        for parameter, buffer in zip(parameters, buffers, strict=False):
            self.state[parameter]["momentum_buffer"] = buffer

    def _orthogonal(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        """Muon for parameters that are matrices of equal shape, as one batch."""
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        weight = torch.stack([_matrix(parameter) for parameter in parameters])
        gradient = torch.stack([_matrix(parameter.grad) for parameter in parameters])  # type: ignore[arg-type]
        momentum = torch.stack([_matrix(buffer) for buffer in momenta])
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is not None:
            gradient = gradient / scale
        next_momentum = momentum * group["momentum"] + gradient
        direction = orthogonalised(gradient + next_momentum * group["momentum"], group[STEPS])
        next_weight = weight * (1 - group["lr"] * group["weight_decay"]) - direction * group["lr"]
        if group["keep_norm"]:
            before, after = weight.norm(dim=(1, 2), keepdim=True), next_weight.norm(dim=(1, 2), keepdim=True)
            # a convolution that is all zero has no norm to keep: it may grow
            next_weight = next_weight * torch.where((before > 0) & (after > 0), before / after, 1.0)
        if found_inf is not None:
            next_momentum = torch.where(found_inf > 0, momentum, next_momentum)
            next_weight = torch.where(found_inf > 0, weight, next_weight)
        likes: list[Tensor] = [*parameters, *momenta]
        results = [*next_weight.unbind(), *next_momentum.unbind()]
        torch._foreach_copy_(likes, [_shaped(result, like) for result, like in zip(results, likes, strict=True)])


def orthogonalised(matrices: Tensor, n_steps: int) -> Tensor:
    """Matrices [batch, rows, columns] with singular values near 1 and the same singular vectors, by Newton-Schulz.

    The iteration x -> a x + b (x x^T) x + c (x x^T)^2 x starts from a matrix of Frobenius norm 1. Its singular values
    end between 0.68 and 1.14, but for those that began too small. On a GPU single precision computes in bf16, as
    published, whatever the number format of the training: a CPU would gain nothing by it.
    """
    a, b, c = COEFFICIENTS
    in_bf16 = matrices.is_cuda and matrices.dtype == torch.float32
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = x.bfloat16() if in_bf16 else x
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


def with_muon(
    optimizer: Optimizer, weights: Iterable[Tensor], *, factor: float, momentum: float, steps: int, keep_norm: bool
) -> MuonSGD:
    """A MuonSGD in the place of an SGD, its state included, that updates `weights` by Muon.

    Their learning rate is `factor` times that of the pipeline. All options of the other parameters stay.
    """
    chosen = set(weights)
    rest, muon = [], []
    for group in optimizer.param_groups:
        if kept := [parameter for parameter in group["params"] if parameter not in chosen]:
            rest.append({**group, "params": kept})
        if taken := [parameter for parameter in group["params"] if parameter in chosen]:
            lr = group["lr"] / group.get("lr_factor", 1.0) * factor
            options = {"lr": lr, "lr_factor": factor, "momentum": momentum, STEPS: steps, "keep_norm": keep_norm}
            muon.append({**group, **options, "params": taken})
    replacing = MuonSGD([*rest, *muon], **optimizer.defaults)
    replacing.state.update(optimizer.state)
    for parameter in chosen:
        replacing.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter, requires_grad=False))
    return replacing


def _matrix(tensor: Tensor) -> Tensor:
    """[out, in, height, width] as [out, height * width * in]: a view of a tensor in channels_last.

    The order of the columns plays no part.
    """
    return tensor.permute(0, 2, 3, 1).flatten(1)


def _shaped(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_matrix`."""
    n_out, n_in, height, width = like.shape
    return matrix.view(n_out, height, width, n_in).permute(0, 3, 1, 2)
