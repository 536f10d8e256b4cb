"""The planned study with runs, for what is proposed as well."""

from tests.search.planning.conftest import study

__all__ = ["study"]
