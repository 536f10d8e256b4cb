"""A study, and a network, as the commands have them."""

from tests.search.commands.networks.conftest import birds, model, objective
from tests.search.conftest import command, handlers, new_study, study_file

__all__ = ["birds", "command", "handlers", "model", "new_study", "objective", "study_file"]
