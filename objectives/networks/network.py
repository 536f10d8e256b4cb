"""The networks of architectures of either kind: where everybody else gets them from."""

from __future__ import annotations

from objectives.networks.architecture import Architecture
from objectives.networks.base import Labels, Network
from objectives.networks.families import architecture_of
from objectives.networks.plain import AnyArchitecture
from objectives.networks.resnet import ResNet
from objectives.networks.sequential import PlainNetwork

__all__ = ["Labels", "Network", "architecture_of", "build"]


def build(architecture: AnyArchitecture, ghost: int = 0) -> Network:
    """The network of an architecture of either kind, with initial weights."""
    if isinstance(architecture, Architecture):
        return ResNet(architecture, ghost)
    return PlainNetwork(architecture, ghost)
