"""The loop that ours is compared with: straight down, with every trick of ours and none of its hooks.

It trains BASELINE's kind of pipeline (step schedule, crop, flip, no strategy) on the same network class, from the same
seeds, and reaches the same weights bit for bit: `benchmarks.training` checks that before it times anything.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from objectives.data.dataset import Dataset, Images
from objectives.networks.architecture import build
from objectives.networks.resnet import ResNet
from objectives.pipeline import Pipeline
from objectives.task import Seeds, Task

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Run:
    """What the bare loop took, and what it trained."""

    seconds: float  # of all steps, on the wall clock
    process_seconds: float  # likewise, CPU time of the process
    model: ResNet | None


def bare(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> Run:
    """Trains without any accounting of losses and with one synchronisation, at the very end."""
    device, (n, channels, size, _) = dataset.train.x.device, dataset.train.x.shape
    products = "tf32" if pipeline.number_format == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    autocast = AUTOCAST.get(pipeline.number_format)
    scaler = torch.amp.GradScaler(device.type) if pipeline.number_format == "fp16" else None
    flip, batch, n_steps = pipeline.flip and dataset.flip, pipeline.batch_size, n // pipeline.batch_size

    model, optimizer = _begun(pipeline, task, dataset, seeds)
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    scale, shift = 1 / (255 * std), mean / std
    padding = size // 8
    side = size + 2 * padding
    line = torch.arange(size, device=device)
    x = dataset.train.x
    assert isinstance(x, torch.Tensor)  # nothing is streamed here

    _synchronise(device)
    start, process_start = time.perf_counter(), time.process_time()
    pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4)).reshape(-1, channels)  # charged, as ours
    for epoch in range(pipeline.epochs):
        ordering = torch.Generator(device).manual_seed(seeds.order + epoch)
        chance = torch.Generator(device).manual_seed(seeds.augmentation + epoch)
        order = torch.randperm(n, generator=ordering, device=device)
        for step in range(n_steps):
            chosen = order[step * batch : (step + 1) * batch]
            top, left = torch.randint(2 * padding + 1, (2, batch, 1), generator=chance, device=device)
            columns = line.expand(batch, size)
            if flip:
                columns = torch.where(
                    torch.rand(batch, 1, generator=chance, device=device) < 0.5, size - 1 - line, line
                )
            index = ((chosen[:, None] * side + top + line) * side + left)[:, :, None] + columns[:, None, :]
            x = pixels.index_select(0, index.view(-1)).view(batch, size, size, channels).permute(0, 3, 1, 2)
            x = x.to(torch.float32).mul_(scale).sub_(shift)

            done = (epoch + (step + 0.5) / n_steps) / pipeline.epochs
            share = 1.0 if done < 0.51 else 0.1 if done < 0.82 else 0.01
            optimizer.param_groups[0]["lr"] = pipeline.peak_lr * share
            with nullcontext() if autocast is None else torch.autocast(device.type, autocast):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), dataset.train.y[chosen])
            _step(loss, optimizer, scaler)
    _synchronise(device)
    return Run(time.perf_counter() - start, time.process_time() - process_start, model)


def _begun(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> tuple[ResNet, torch.optim.SGD]:
    """The network and its optimizer before the first step."""
    torch.manual_seed(seeds.init)
    shape = {"in_channels": dataset.channels, "n_classes": dataset.n_classes, "stem_stride": task.stem_stride}
    model = ResNet(build(task.family, depth=pipeline.depth, width=pipeline.width, **shape))
    model = model.to(dataset.train.x.device).train()
    momentum, decay = pipeline.momentum, pipeline.weight_decay
    return model, torch.optim.SGD(model.parameters(), 0.1, momentum, weight_decay=decay, nesterov=True, fused=True)


def _step(loss: torch.Tensor, optimizer: torch.optim.SGD, scaler: torch.amp.GradScaler | None) -> None:
    """A step of the optimizer."""
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)


def warmed(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds, n_steps: int) -> Run:
    """`bare` after `n_steps` untimed steps of another network of the same shape, as `train` has them."""
    few = Images(*(tensor[: n_steps * pipeline.batch_size] for tensor in (dataset.train.x, dataset.train.y)))
    bare(replace(pipeline, epochs=1), task, replace(dataset, train=few), seeds)
    return bare(pipeline, task, dataset, seeds)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
