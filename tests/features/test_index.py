"""An index gives the slots that it was told, whatever the ids and however they came and went."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.features.index import Index

KEY = bytes(range(16))
WORD = 2**64 - 1
IDS = st.text(max_size=20) | st.sampled_from(["\ud800", "é" * 9, "a\0", "a", "x" * 300])


def test_ids_that_come_and_go_have_their_slots() -> None:
    """A thousand random steps against a dict, through several sizes, long chains included."""
    draw, index, known = np.random.default_rng(1), Index(KEY), dict[str, int]()
    for step in range(1_000):
        new = {str(i) for i in draw.integers(0, 3_000, draw.integers(0, 40))} - known.keys()
        added = {id_: 5 * step + i for i, id_ in enumerate(sorted(new))}
        index.add(index.hashes(list(added)), np.array(list(added.values()), np.int64))
        known |= added
        gone = [id_ for id_ in known if draw.random() < 0.02]
        index.remove(gone)
        for id_ in gone:
            del known[id_]
        asked = [str(i) for i in draw.integers(0, 3_000, 50)]
        assert index.find(asked).tolist() == [known.get(id_, -1) for id_ in asked]
    assert len(index) == len(known) > 300
    assert index.slots().tolist() == sorted(known.values())


@given(st.lists(IDS, unique=True))
def test_any_text_is_an_id(ids: list[str]) -> None:
    """Also an empty one, one of many bytes, and a lone surrogate; and none is another's."""
    index = Index(KEY)
    index.add(index.hashes(ids), np.arange(len(ids)))
    assert index.find(ids).tolist() == list(range(len(ids)))
    assert index.find([id_ + "\0" for id_ in ids if id_ + "\0" not in ids]).tolist() == [
        -1 for id_ in ids if id_ + "\0" not in ids
    ]


def test_what_was_cleared_is_gone() -> None:
    """And may come again elsewhere."""
    index = Index(KEY)
    index.add(index.hashes(["a", "b"]), np.array([3, 4]))
    index.clear()
    assert (len(index), index.find(["a", "b"]).tolist()) == (0, [-1, -1])
    index.add(index.hashes(["b"]), np.array([0]))
    assert index.find(["a", "b"]).tolist() == [-1, 0]


def test_a_list_that_is_asked_for_again_finds_what_was_added_meanwhile() -> None:
    """Its hashes are kept, its places are not."""
    index, ids = Index(KEY), ["a", "b", "c"]
    assert index.find(ids).tolist() == [-1, -1, -1]
    index.add(index.hashes(ids), np.array([5, 6, 7]))
    assert index.find(ids).tolist() == [5, 6, 7]
    index.remove(["b"])
    assert index.find(ids).tolist() == [5, -1, 7]
    assert index.find(["c", "a"]).tolist() == [7, 5]


def test_nothing_is_found_of_no_ids() -> None:
    """A batch may be empty."""
    index = Index(KEY)
    index.add(index.hashes([]), np.empty(0, np.int64))
    assert index.find([]).tolist() == index.slots().tolist() == []


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 16, 63])
def test_the_hash_is_siphash(length: int) -> None:
    """Of one round and three, 128 bits, as its authors' paper gives it; half of the second word."""
    text = "".join(chr(33 + i) for i in range(length))
    one, two = siphash(KEY, text.encode(), 1, 3)
    assert Index(KEY).hashes([text]).tolist() == [[one, two >> 32 << 32]]


def test_the_plain_siphash_gives_the_published_value() -> None:
    """Of two rounds and four: the first of the test vectors of its authors' implementation."""
    one, two = siphash(KEY, b"", 2, 4)
    found = one.to_bytes(8, "little") + two.to_bytes(8, "little")
    assert found.hex() == "a3817f04ba25a8e66df67214c7550293"


def siphash(key: bytes, data: bytes, rounds: int, last: int) -> tuple[int, int]:
    """Return the two words of a SipHash of 128 bits, by integers of Python."""
    k = [int.from_bytes(key[i : i + 8], "little") for i in (0, 8)]
    v = [
        k[0] ^ 0x736F6D6570736575, k[1] ^ 0x646F72616E646F6D ^ 0xEE,
        k[0] ^ 0x6C7967656E657261, k[1] ^ 0x7465646279746573,
    ]  # fmt: skip
    for word in words(data):
        v[3] ^= word
        for _ in range(rounds):
            mix(v)
        v[0] ^= word
    out = []
    for place, constant in ((2, 0xEE), (1, 0xDD)):
        v[place] ^= constant
        for _ in range(last):
            mix(v)
        out.append(v[0] ^ v[1] ^ v[2] ^ v[3])
    return out[0], out[1]


def words(data: bytes) -> Iterator[int]:
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) % 256])
    for first in range(0, len(padded), 8):
        yield int.from_bytes(padded[first : first + 8], "little")


def mix(v: list[int]) -> None:
    def half(a: int, b: int, turn: int) -> None:
        v[a] = (v[a] + v[b]) & WORD
        v[b] = rotated(v[b], turn) ^ v[a]

    half(0, 1, 13)
    v[0] = rotated(v[0], 32)
    half(2, 3, 16)
    half(0, 3, 21)
    half(2, 1, 17)
    v[2] = rotated(v[2], 32)


def rotated(word: int, turn: int) -> int:
    return (word << turn | word >> (64 - turn)) & WORD
