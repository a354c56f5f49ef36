"""The page in headless Chromium: on a desk, on a phone, in the dark and on paper, by mouse and by keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from browser import CHROMIUM, MISSING, Browser
from PIL import Image
from written_runs import write_run

from fundus_seg.data.dataset import Sample
from fundus_seg.reporting.page.asked import Asked
from fundus_seg.reporting.page.pictures import pictures_of
from fundus_seg.reporting.page.render import report_page, write_page
from fundus_seg.reporting.page.results import find_results

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

LONG = "a" * 120
COLUMN = (
    "[...document.querySelectorAll('#cases tbody tr:not([hidden]) td:nth-child({})')].map(cell => cell.textContent)"
)
ROOT = "document.documentElement"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with photographs, in which a case has a name without an end."""
    folder = tmp_path_factory.mktemp("page")
    for op in ("conv", "tvconv"):
        for holdout in "AB":
            write_run(folder / "runs", op=op, holdout=holdout, cases=("one", "two", LONG, "four"), phantom=True)
    (found,) = find_results([folder / "runs"])

    def predict(evaluation, names):
        for name in names:
            masks = np.zeros((2, 64, 64), bool)
            masks[0, 10:50, 10:50] = masks[1, 20:40, 20:40] = True
            yield Sample(name, np.full((64, 64, 3), 90, np.uint8), masks, (True, True)), masks

    write_page(report_page([found], Asked(pictures=pictures_of(found, predict))), folder / "report.html")
    text = (folder / "report.html").read_text("utf8").replace('id="phantom-', 'id="')
    (folder / "report.html").write_text(text, "utf8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser for all tests of this file."""
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False), (360, True)])
def test_the_page_fits_and_loads_nothing(browser, page, width, dark, tmp_path):
    browser.open(page, width, dark=dark)
    assert browser.ask(f"{ROOT}.scrollWidth") == width
    browser.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.ask(f"{ROOT}.scrollWidth") == width
    asked = {url for url in browser.requested if not url.startswith("data:")}
    assert asked == {page.resolve().as_uri()}
    assert browser.complaints == []
    corner = Image.open(browser.picture(tmp_path / "page.png")).convert("L").getpixel((2, 2))
    assert corner < 60 if dark else corner > 240


def test_rows_are_ordered_by_numbers_by_keyboard(browser, page):
    browser.open(page)
    heading = "document.querySelectorAll('#cases th button')[4]"
    browser.ask(f"{heading}.focus()")
    orders = []
    for direction in ("ascending", "descending"):
        browser.press("Enter", 13)
        assert browser.ask(f"{heading}.parentElement.getAttribute('aria-sort')") == direction
        orders.append([float(text) for text in browser.ask(COLUMN.format(5))])
    assert orders[0] == sorted(orders[0])
    assert orders[1] == sorted(orders[0], reverse=True)


def test_rows_are_chosen_by_words_and_by_a_list(browser, page):
    browser.open(page)
    told = "document.querySelector('#cases output').textContent"
    assert browser.ask(told) == "12 of 12 rows"
    change = "const box = document.querySelector('#cases {}'); box.value = '{}'; "
    change += "box.dispatchEvent(new Event('input', {{bubbles: true}}))"
    browser.ask("{" + change.format("input[type=search]", "TVCONV worst") + "}")
    assert set(browser.ask(COLUMN.format(4))) == {"tvconv"}
    assert browser.ask(told) == "2 of 12 rows"
    browser.ask("{" + change.format("select", "B") + "}")
    assert browser.ask(told) == "1 of 12 rows"
    assert browser.ask(COLUMN.format(1)) == ["B"]


def test_outlines_are_switched_and_photographs_are_zoomed(browser, page):
    browser.open(page)
    seen = "[...document.querySelectorAll('.cases .{}')].filter(each => each.getBoundingClientRect().width > 0).length"
    before = browser.ask(seen.format("outline-1"))
    assert before > 0
    browser.ask("document.querySelector('[data-shows=outline-1]').focus()")
    browser.press(" ", 32)
    assert browser.ask(seen.format("outline-1")) == 0
    assert browser.ask(seen.format("outline-2")) == before
    width = "document.querySelector('.zoomed svg').getBoundingClientRect().width"
    whole = browser.ask(width)
    browser.ask("document.querySelector('[data-zoom]').focus()")
    browser.press("End", 35)
    assert browser.ask(width) == pytest.approx(8 * whole, rel=0.01)
    assert browser.ask("document.querySelector('.zoomed').scrollLeft") > whole
    assert browser.ask(f"{ROOT}.scrollWidth") == 1280


def test_all_that_is_folded_is_printed(browser, page):
    browser.open(page)
    heights = "document.querySelectorAll('details:not([open])').length"
    folded = browser.ask(heights)
    assert folded > 3
    assert browser.pdf().startswith(b"%PDF")
    assert browser.ask(heights) == folded
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.ask(heights) == 0


def test_a_paragraph_is_copied(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('#methods .copy').click()")
    assert browser.ask("getSelection().toString()").startswith("All photographs are synthetic")
