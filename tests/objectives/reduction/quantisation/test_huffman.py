"""Laws of Huffman's code: what is decoded is what was encoded, in as few bits as a code of whole bits can."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.reduction.quantisation.huffman import AT_ONCE, LONGEST, Integers, decoded, encoded, lengths


def counted(symbols: Integers) -> Integers:
    return np.bincount(symbols, minlength=int(symbols.max(initial=-1)) + 3)  # some symbols never occur


@given(st.lists(st.integers(0, 40) | st.integers(0, 3), max_size=300))
def test_what_is_decoded_is_what_was_encoded_within_a_bit_of_the_entropy(listed: list[int]) -> None:
    symbols = np.array(listed, np.int64)
    counts = counted(symbols)
    bits = lengths(counts)
    content = encoded(symbols, bits)
    assert decoded(content, bits, len(symbols)).tolist() == listed
    shares = counts[counts > 0] / max(1, len(symbols))
    entropy, n = -float(np.sum(shares * np.log2(shares))), len(symbols)
    total = int(counts @ bits)
    n_different = len(set(listed))
    assert n * entropy - 1e-6 <= total <= n * (entropy + 1)
    assert total <= n * (math.ceil(math.log2(n_different)) if n_different > 1 else 1)
    assert len(content) == (math.ceil(total / 8) if n_different > 1 else 0)
    assert ((bits > 0) == (counts > 0)).all()


def test_a_code_is_as_long_as_any_by_hand() -> None:
    assert lengths(np.array([5, 9, 12, 13, 16, 45])).tolist() == [4, 4, 3, 3, 3, 1]  # Cormen et al., section 15.3
    assert lengths(np.array([], np.int64)).tolist() == []
    assert lengths(np.array([0, 7, 0])).tolist() == [0, 1, 0]
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert lengths(np.array(fibonacci)).max() == 39 < LONGEST  # the longest that so many symbols can make


def test_contents_longer_than_what_is_looked_at_together_come_back() -> None:
    random = np.random.default_rng(0)
    symbols = np.minimum(random.geometric(0.02, 9 * AT_ONCE // 4), 700).astype(np.int64)
    bits = lengths(counted(symbols))
    content = encoded(symbols, bits)
    assert len(content) > AT_ONCE
    assert bits.max() > 8
    assert np.array_equal(decoded(content, bits, len(symbols)), symbols)


def test_what_was_cut_off_or_has_no_code_is_refused() -> None:
    symbols = np.arange(50) % 7
    bits = lengths(np.bincount(symbols))
    content = encoded(symbols, bits)
    with pytest.raises(ValueError, match="of 50 symbols are there"):
        decoded(content[:-2], bits, 50)
    with pytest.raises(ValueError, match="no Huffman code has these lengths"):
        decoded(content, np.array([1, 1, 1]), 50)
    with pytest.raises(ValueError, match="none has a code"):
        decoded(content, np.array([0, 0]), 50)
