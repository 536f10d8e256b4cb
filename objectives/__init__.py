"""The objective: one training of a pipeline, its seconds and its accuracy. Knows nothing of Optuna."""

__version__ = "0.1.0"
