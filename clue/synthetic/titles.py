"""Titles of the synthetic world's items: a few forms per service, filled with its topics' words."""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np

# {a} and {b} are words of the item's topic; {x}, {y} and {n} say nothing about it, but in the shop,
# where {x} is a brand and a brand keeps to one interest.
FORMS = {
    "shop": ("{x} {y} {a}", "{x} {a}, {y}, {n} cm", "{x} {a} with {b}", "{y} {a} and {b} by {x}"),
    "news": ("{a} {x} in {y}", "{y}: {a} and {b}", "what {a} mean for {y}", "after {a}, {b} {x}"),
    "films": (
        "the {x} {a} ({n})",
        "{a} of {y} ({n})",
        "the {a} and the {b} ({n})",
        "{x} {a} in {y}",
    ),
}
FILLERS = {
    "shop": (
        "",
        "compact classic foldable premium deluxe black blue green heavy light small large",
    ),
    "news": (
        "questioned delayed explained debated halted rising shrinking approved postponed reviewed",
        "Oslo Lisbon Nairobi Seoul Lima Cairo Dublin Hanoi Quito Perth Turin Boston",
    ),
    "films": (
        "last hidden broken brave forgotten quiet second strange restless lonely",
        "Avalon Marrakesh Havana Siberia Tuscany Bombay Montana Kyoto Patagonia Normandy",
    ),
}
NUMBERS = {"shop": (5, 120), "news": (2, 9), "films": (1931, 2024)}
# A title met before becomes the next of its kind: no two items of a service read the same.
AGAIN = {"shop": "{title}, series {n}", "news": "{title}, part {n}", "films": "{title}, sequel {n}"}
BRAND_HEADS = ("Nor", "Vel", "Kar", "Bri", "Sol", "Tam", "Ost", "Lin", "Fjo", "Zan", "Rud", "Mel")
BRAND_TAILS = ("vik", "aro", "eta", "dan", "mis", "umi")

Words = dict[str, dict[str, dict[str, list[str]]]]


def read_words() -> Words:
    """Return interest -> sub-topic -> service -> the things its titles speak of.

    Within an interest no two services share a word, so that only behaviour ties a skillet in the
    shop to a braised recipe in the news.
    """
    text = files("clue.synthetic").joinpath("words.txt").read_text(encoding="utf-8")
    words: Words = {}
    interest, sub_topic = "", ""
    for line in text.splitlines():
        depth, entry = len(line) - len(line.lstrip()), line.strip()
        if depth == 0:
            interest = entry
            words[interest] = {}
        elif depth == 1:
            sub_topic = entry
            words[interest][sub_topic] = {}
        else:
            service, _, things = entry.partition(" ")
            words[interest][sub_topic][service] = [str(thing) for thing in things.split("; ")]
    return words


def brands_of(interest: int) -> list[str]:
    """Return the brands of the shop that keep to one interest, counted from 0 to 11."""
    size = len(BRAND_HEADS)
    return [BRAND_HEADS[(interest + 5 * n) % size] + tail for n, tail in enumerate(BRAND_TAILS)]


def make_titles(
    rng: np.random.Generator, service: str, topics: Sequence[tuple[int, Sequence[str]]]
) -> list[str]:
    """Return a title for every item, none twice; an item is its interest's number and its words."""
    forms, (low, high) = FORMS[service], NUMBERS[service]
    fillers = [text.split() for text in FILLERS[service]]
    dice = rng.integers(2**31, size=(len(topics), 6)).tolist()
    title_counts: dict[str, int] = {}
    titles: list[str] = []
    for (interest, things), (form, a, b, x, y, n) in zip(topics, dice, strict=True):
        first = a % len(things)
        other = (first + 1 + b % (len(things) - 1)) % len(things)
        flavour = fillers[0] or brands_of(interest)
        title = forms[form % len(forms)].format(
            a=things[first],
            b=things[other],
            x=flavour[x % len(flavour)],
            y=fillers[1][y % len(fillers[1])],
            n=low + n % (high - low + 1),
        )
        title_counts[title] = title_counts.get(title, 0) + 1
        again = AGAIN[service].format(title=title, n=title_counts[title])
        titles.append(again if title_counts[title] > 1 else title)
    return titles
