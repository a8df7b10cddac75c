import re
from collections import defaultdict

import numpy as np

from clue.synthetic.titles import FORMS, brands_of, make_titles, read_words


def test_every_topic_has_words_in_every_service() -> None:
    words = read_words()
    assert len(words) >= 12
    for sub_topics in words.values():
        assert 4 <= len(sub_topics) <= 6
        for services in sub_topics.values():
            assert list(services) == list(FORMS)
            for things in services.values():
                assert len(set(things)) == len(things) >= 5


def test_no_word_of_an_interest_is_in_two_services() -> None:
    checked = 0
    for interest, sub_topics in read_words().items():
        services_of: dict[str, set[str]] = defaultdict(set)
        for services in sub_topics.values():
            for service, things in services.items():
                for word in re.findall(r"[a-z]{4,}", " ".join(things)):
                    services_of[word.rstrip("s")[:6]].add(service)  # "coach" is "coaches"
        for stem, services in services_of.items():
            assert len(services) == 1, f"{interest}: {stem} is in {services}"
            checked += 1
    assert checked > 1000


def test_a_brand_keeps_to_one_interest() -> None:
    brands = [brand for interest in range(12) for brand in brands_of(interest)]
    assert len(set(brands)) == len(brands) == 72


def test_no_title_twice_and_each_speaks_of_its_topic() -> None:
    for service in FORMS:
        things = read_words()["cooking"]["baking"][service]
        titles = make_titles(np.random.default_rng(0), service, [(0, things)] * 5000)
        assert len(set(titles)) == 5000
        assert all(any(thing in title for thing in things) for title in titles)
        assert not any("{" in title or "  " in title for title in titles)
