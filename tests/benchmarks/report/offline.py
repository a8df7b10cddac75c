# pyright: standard
"""What a page may hold that is mailed and opened without a network."""

import html.parser
import re


def offline(page: str) -> list[str]:
    """The page's tags, once it is sure that it asks for nothing and runs nothing."""
    tags: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            for key, value in attrs:
                assert not key.startswith("on") and key not in ("src", "srcset", "data", "action")
                assert key not in ("href", "xlink:href") or str(value).startswith("#")

    Reader().feed(page)
    assert not {"script", "link", "iframe", "img", "object", "image"}.intersection(tags)
    assert not re.search(r"@import|https?:|url\((?!#)", page)
    return tags
