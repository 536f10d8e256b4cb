"""The search: studies, their trials, the devices that train them. Knows Optuna, never a training step."""
