"""The search: studies, their trials, the devices that train them. Knows Optuna, never a training step."""

__version__ = "0.1.0"
