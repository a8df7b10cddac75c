"""The explorer page in a headless Chromium over a real model: typing, results, errors."""

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.routes.page import FILES
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.process import listening

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
if CHROMIUM is None:
    pytest.skip("needs Debian's chromium", allow_module_level=True)

WAIT = 60_000  # ms; a busy machine takes seconds for what takes .1 elsewhere


@pytest.fixture(scope="module")
def url(tiny_universal: TinyRun, universal_index: Path) -> Generator[str]:
    """A service of the tiny universal model on a port of its own."""
    settings = Settings(checkpoint=tiny_universal.run, index=universal_index, drain_seconds=0)
    with listening(settings) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, url: str) -> Generator[Any]:
    """The page as it opens; whatever a test does, no error is logged, nothing outside is asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT)
    opened = context.new_page()
    wrong: list[str] = []
    outside: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    # the browser itself logs each refused request, whose answer the tests look at
    opened.on(
        "console",
        lambda line: (
            None
            if line.type != "error" or "Failed to load resource" in line.text
            else wrong.append(line.text)
        ),
    )
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((url, "data:")) else outside.append(asked.url),
    )
    opened.goto(url)
    opened.wait_for_selector("#events input")
    yield opened
    context.close()
    assert (wrong, outside) == ([], [])


def services(url: str) -> list[str]:
    return httpx.get(f"{url}/v1/models").json()["index"]["services"]


def settled(page: Any, begin: str) -> None:
    page.wait_for_function(
        "begin => document.querySelector('#status').textContent.startsWith(begin)", arg=begin
    )


def test_it_opens_empty_and_says_what_to_do(page: Any, url: str) -> None:
    settled(page, "Nothing is written yet")
    index = httpx.get(f"{url}/v1/models").json()["index"]
    assert page.inner_text("#generation") == index["id"]
    assert page.locator("#problem").is_hidden()
    assert page.locator("#items .card").count() == 0
    assert "users of the population" in page.inner_text("#map-text")
    drawn = "() => new Set(document.querySelector('#map').getContext('2d')" + (
        ".getImageData(0, 0, 200, 200).data).size"
    )
    assert page.evaluate(drawn) > 1


def test_typing_shows_items_of_each_service_and_look_alikes(page: Any, url: str) -> None:
    first = page.locator("#events input").first
    first.fill("a pan of cast iron")
    first.press("Enter")
    assert page.locator("#events li").count() == 2
    page.keyboard.type("<img src=x onerror=alert(1)>")
    settled(page, "2 behaviours")
    names = services(url)
    headings = page.locator("#items .card h4").all_inner_texts()
    assert headings == names
    assert page.locator("#items .card li").count() == 6 * len(names)
    assert page.locator("#alike > li").count() == 6
    assert page.locator("#alike .did").count() == 6
    assert page.inner_text("#latency").endswith(" ms")
    assert "6 look-alikes marked" in page.inner_text("#map-text")
    assert page.locator("img").count() == 0
    page.keyboard.press("Control+A")
    page.keyboard.press("Backspace")
    settled(page, "1 behaviour:")
    page.keyboard.press("Backspace")
    assert page.locator("#events li").count() == 1
    page.click("#clear")
    settled(page, "Nothing is written yet")


def test_a_known_user_their_history_and_on_to_a_look_alike(page: Any, url: str) -> None:
    page.focus("#tab-write")
    page.keyboard.press("ArrowRight")
    settled(page, "Pick a user")
    user = httpx.get(f"{url}/v1/explore/users?limit=1").json()["data"][0]
    page.fill("#user", user)
    settled(page, f"User {user}:")
    body = {"user_ids": [user], "newest": 8}
    (history,) = httpx.post(f"{url}/v1/explore/histories", json=body).json()["data"]
    text = page.inner_text("#history")
    met = [item["text"] for service in history["services"] for item in service["newest"]]
    assert len(met) > 3 and all(each in text for each in met)
    other = page.locator("#alike .person button").first
    name = other.inner_text()
    other.click()
    settled(page, f"User {name}:")
    assert page.input_value("#user") == name != user


def test_what_goes_wrong_is_said_in_plain_words(page: Any) -> None:
    page.click("#tab-known")
    page.fill("#user", "nobody at all")
    page.wait_for_selector("#problem:not([hidden])")
    assert "No such user" in page.inner_text("#problem")
    page.click("#tab-write")
    settled(page, "Nothing is written yet")
    assert page.locator("#problem").is_hidden()
    page.locator("#events input").first.fill("\u200b" * 3 + "pan")
    settled(page, "1 behaviour:")
    page.context.set_offline(True)
    page.locator("#events input").first.fill("kettle")
    page.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in page.inner_text("#problem")
    page.context.set_offline(False)
    page.locator("#events input").first.fill("kettles")
    page.wait_for_selector("#problem", state="hidden")


def test_at_phone_width_nothing_lies_outside(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    page.click("#sample")
    page.wait_for_selector("#alike .did")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_the_page_is_its_own_files_under_a_strict_policy(url: str) -> None:
    answer = httpx.get(url)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy and "*" not in policy
    assert set(FILES) == {"index.html", "style.css", "app.js", "api.js", "map.js"}
    checked = 0
    for name, (body, kind) in FILES.items():
        text = body.decode()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in text, name
        assert "http://" not in text and "https://" not in text, name
        if name != "index.html":
            sent = httpx.get(f"{url}/page/{name}")
            assert (sent.content, sent.headers["content-type"]) == (body, kind)
            checked += 1
    assert checked == 4
    assert httpx.get(f"{url}/page/index.html").status_code == 404
    assert httpx.get(f"{url}/page/..%2fapp.py").status_code == 404
