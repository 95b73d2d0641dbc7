"""The report in a real browser: no error, nothing loaded from elsewhere, fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from headless_browser import NAMES, Page, browser, find_browser
from synthetic_report import make_report

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page():
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser on the PATH (looked for {', '.join(NAMES)}): install Chromium for this test")
    with browser(program) as tab:
        yield tab


def outside_requests(page: Page) -> list[str]:
    addresses = [event["request"]["url"] for event in page.heard("Network.requestWillBeSent")]
    assert addresses, "the browser reports requests"
    return [address for address in addresses if not address.startswith(("file:", "data:"))]


def complaints(page: Page) -> list[dict]:
    errors = [
        event["entry"]
        for event in page.heard("Log.entryAdded")
        if event["entry"]["level"] in ("error", "warning")
    ]
    return [*errors, *page.heard("Runtime.exceptionThrown"), *page.heard("Runtime.consoleAPICalled")]


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_opens_without_error_or_outside_request(page, report, width, dark):
    page.open(report, width, dark=dark)
    assert complaints(page) == []
    assert outside_requests(page) == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("width", [320, PHONE, 768, DESKTOP])
def test_body_never_scrolls_sideways(page, report, width):
    page.open(report, width)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.clientWidth") <= width
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    # Nothing but what scrolls in a container of its own reaches beyond the right edge.
    beyond = """[...document.querySelectorAll('body *')]
        .filter(part => !part.closest('.scroll') && part.getBoundingClientRect().right > innerWidth + 1)
        .map(part => part.outerHTML.slice(0, 80))"""
    assert page.evaluate(beyond) == []


def test_key_result_is_in_sight_on_a_phone(page, report):
    page.open(report, PHONE, 844)
    assert page.evaluate("document.querySelector('.headline').getBoundingClientRect().bottom") < 844
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_dark_and_light_differ_and_both_are_readable(page, report):
    contrast = """(() => {
        const light = text => text.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
            .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
        const ratio = (one, two) => (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        const ground = part => {
            for (; part; part = part.parentElement) {
                const colour = getComputedStyle(part).backgroundColor;
                if (colour !== 'rgba(0, 0, 0, 0)') return light(colour);
            }
        };
        return Math.min(...[...document.querySelectorAll('p, td, th, dd, a, h1, h2, .verdict, .soft')]
            .map(part => ratio(light(getComputedStyle(part).color), ground(part))));
    })()"""
    grounds = []
    for dark in (False, True):
        page.open(report, DESKTOP, dark=dark)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate(contrast) >= 4.5
    assert grounds[0] != grounds[1]


def test_the_browser_would_notice(page, tmp_path):
    """The checks above can fail: a page with a script error, an outside picture and a wide box."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'><img src='http://127.0.0.1:9/x.png'>"
        "<div style='width:900px'>wide</div><script>throw new Error('broken')</script>",
        encoding="utf-8",
    )
    page.open(bad, PHONE)
    assert outside_requests(page) == ["http://127.0.0.1:9/x.png"]
    assert any("broken" in str(complaint) for complaint in complaints(page))
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE
