import dataclasses

import numpy as np
import pytest

from serving.contents import BrokenIndex, check, content_of
from tests.serving.planted import contents


def test_vectors_that_are_none_are_refused() -> None:
    good = contents()
    check(good)
    for value in (np.nan, np.inf, 2.0):
        vectors = good.user_vectors.copy()
        vectors[3, 2] = value
        with pytest.raises(BrokenIndex, match="user vector"):
            check(dataclasses.replace(good, user_vectors=vectors))
    for name, wrong in (("user", good.user_vectors[:-1]), ("item", good.item_vectors[:, :-1])):
        with pytest.raises(BrokenIndex, match=f"{name} vectors"):
            check(dataclasses.replace(good, **{f"{name}_vectors": wrong}))


def test_content_tells_services_and_texts_apart() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ("", "abc"), ("a", "Bc")]
    assert len({content_of(*pair) for pair in pairs}) == len(pairs)
