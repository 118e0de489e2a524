"""The cache of latents: what it forgets, and that it keeps to its bytes (property)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.server.scoring.cache import LatentCache, Latents, cache_key


def latents(number: int, kept: int = 4) -> Latents:
    return Latents(np.arange(kept, dtype=np.int32), np.full(kept, number, dtype=np.float32))


def test_the_conversation_not_used_for_longest_is_forgotten() -> None:
    one = LatentCache(10_000)
    one.put(cache_key([0]), latents(0))
    cache = LatentCache(3 * one.size)
    for number in range(3):
        cache.put(cache_key([number]), latents(number))
    assert cache.get(cache_key([0])) is not None
    cache.put(cache_key([3]), latents(3))
    known = [cache.get(cache_key([number])) is not None for number in range(4)]
    assert known == [True, False, True, True]


def test_keys_are_the_exact_tokens() -> None:
    rows = [[1], [1, 2], [2, 1], [256], [0, 1], [1, 0], [65_536]]
    assert len({cache_key(row) for row in rows}) == len(rows)


def test_nothing_is_kept_without_room_and_views_are_copied() -> None:
    none = LatentCache(0)
    none.put(cache_key([1]), latents(1))
    assert (len(none), none.get(cache_key([1]))) == (0, None)
    whole = np.arange(8, dtype=np.float32)
    cache = LatentCache(10_000)
    cache.put(cache_key([1]), Latents(np.arange(2, dtype=np.int32), whole[:2]))
    whole[:] = 9
    found = cache.get(cache_key([1]))
    assert found is not None
    assert found.values.tolist() == [0, 1]
    assert found.values.base is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60), st.integers(0, 5_000))
def test_property_it_never_holds_more_than_its_bytes(puts: list[tuple[int, int]], most: int) -> None:
    cache = LatentCache(most)
    last: dict[int, Latents] = {}
    for number, kept in puts:
        last[number] = latents(number, kept)
        cache.put(cache_key([number]), last[number])
        assert 0 <= cache.size <= most
        assert (cache.size == 0) == (len(cache) == 0)
    for number, put in last.items():
        found = cache.get(cache_key([number]))
        assert found is None or found.values.tolist() == put.values.tolist()
