"""Which names are trained on, which are watched, which are held out: a hash of the name and a seed decides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")
NUM_LARGE = 400  # names; with fewer the shares of a hash are left to chance


def split_names(names: Sequence[str], *, test_fraction: float, validation_fraction: float, seed: int,
                at_least: int = 1) -> dict[str, str]:
    """Assign each name (of a speaker, or of a sample) to a split by a hash of it and the seed.

    In a large set adding names moves no other; in a small one every split gets its share, at least `at_least`. A fraction of
    zero leaves its split empty.
    """
    def share(name: str) -> float:
        return int.from_bytes(hashlib.sha1(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64

    test, validation = test_fraction, test_fraction + validation_fraction
    places = {name: share(name) for name in names}
    if len(places) < NUM_LARGE:
        places = {name: rank for rank, name in enumerate(sorted(places, key=places.get))}
        test = max(round(test_fraction * len(places)), at_least) if test_fraction else 0
        validation = test + (max(round(validation_fraction * len(places)), at_least) if validation_fraction else 0)
    return {n: "test" if places[n] < test else "validation" if places[n] < validation else "train" for n in names}
