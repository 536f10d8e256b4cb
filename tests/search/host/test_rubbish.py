"""Stretches without a search for rubbish."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from search.host import rubbish


@pytest.mark.parametrize("was_on", [True, False])
def test_rubbish_is_searched_for_again_after_whatever_happened_inside(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with suppress(KeyError), rubbish.kept(), rubbish.kept():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
