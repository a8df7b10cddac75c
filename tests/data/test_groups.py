"""Groups of services: a batch is of one population, the turns follow the shares."""

import numpy as np
import pytest

from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.groups import CYCLE, GroupSampler
from clue.data.views import GroupConfig, ViewsConfig
from tests.conftest import TinyRun

GROUPS = [
    GroupConfig(services=["shop", "films"], share=3),
    GroupConfig(services=["news"], share=1),
]
VIEWS = ViewsConfig(cross_service=0.5, past_future=0.5, slices=0.0, max_events=6, groups=GROUPS)


@pytest.fixture(scope="module")
def corpus(tiny_run: TinyRun) -> Corpus:
    return Corpus.open(tiny_run.corpus)


def test_a_batch_is_of_one_group_and_turns_follow_the_shares(corpus: Corpus) -> None:
    sampler = GroupSampler(corpus, VIEWS, batch=20, seed=3)
    of_item = {
        tuple(corpus.item_tokens[i].tolist()): str(corpus.services[corpus.item_service[i]])
        for i in range(corpus.num_items)
    }
    seen = {"shop films": 0, "news": 0}
    for step in range(CYCLE):
        batch = sampler.at(step)
        ends = np.cumsum(batch.token_lengths)
        lengths = zip(ends, batch.token_lengths, strict=True)
        found = {of_item[tuple(batch.tokens[end - n : end].tolist())] for end, n in lengths}
        assert found in ({"shop", "films"}, {"news"})
        seen["news" if found == {"news"} else "shop films"] += 1
    assert seen == {"shop films": 75, "news": 25}


def test_a_group_goes_through_its_users_like_a_sampler_of_its_own(corpus: Corpus) -> None:
    sampler = GroupSampler(corpus, VIEWS, batch=20, seed=3)
    news = [step for step in range(2 * CYCLE) if sampler.turns.order[step % CYCLE] == 1]
    assert len(news) == 50
    for turn in (0, 24, 25, 49):
        own, mine = sampler.samplers[1].at(turn), sampler.at(news[turn])
        np.testing.assert_array_equal(own.user, mine.user)
        np.testing.assert_array_equal(own.tokens, mine.tokens)


def test_processes_share_a_batch_of_a_group(corpus: Corpus) -> None:
    sampler = GroupSampler(corpus, VIEWS, batch=20, seed=3)
    for step in range(6):
        users = [sampler.at(step, rank, 2).user for rank in (0, 1)]
        np.testing.assert_array_equal(np.concatenate(users), sampler.at(step).user)


def test_one_group_of_all_services_is_the_plain_sampler(corpus: Corpus) -> None:
    whole = ViewsConfig(groups=[GroupConfig(services=list(corpus.services))])
    plain = PairSampler(corpus, ViewsConfig(), batch=20, seed=5)
    grouped = GroupSampler(corpus, whole, batch=20, seed=5)
    for step in (0, 7, CYCLE + 7):
        for name, values in vars(plain.at(step)).items():
            np.testing.assert_array_equal(getattr(grouped.at(step), name), values)


def test_a_group_of_one_service_has_windows_for_pairs(corpus: Corpus) -> None:
    news = GroupSampler(corpus, VIEWS, batch=20, seed=3).samplers[1]
    assert news.shares == {"cross_service": 0, "past_future": 20, "slices": 0}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([GroupConfig(services=["shop", "zoo"])], "views.groups has zoo; .* has the services"),
        (
            [GroupConfig(services=["shop"], share=1000), GroupConfig(services=["news"])],
            "less than one in 100",
        ),
    ],
)
def test_wrong_groups_are_refused(corpus: Corpus, groups: list[GroupConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupSampler(corpus, ViewsConfig(groups=groups), batch=20, seed=0)


def test_a_group_of_too_few_users_is_named(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="group news: batch 4000 takes .* past_future users"):
        GroupSampler(
            corpus, ViewsConfig(groups=[GroupConfig(services=["news"])]), batch=4000, seed=0
        )


def test_groups_that_share_a_service_or_have_no_part_are_refused() -> None:
    with pytest.raises(ValueError, match="a service is in one of them"):
        ViewsConfig(groups=[GroupConfig(services=["a"]), GroupConfig(services=["a", "b"])])
    with pytest.raises(ValueError, match="all above 0"):
        ViewsConfig(groups=[GroupConfig(services=["a"], share=0)])
