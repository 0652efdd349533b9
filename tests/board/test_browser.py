"""The report in a real browser.

It runs without an error, sorts, filters, fits, and has both themes.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.board import render_report
from bench.board.build import boards_of
from tests.board.synthetic import QUICK, Kind, record, records
from tests.board.test_pages import NASTY

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
webdriver: Any = pytest.importorskip("selenium.webdriver")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    competing = [kind for kind in QUICK if kind.role in ("ranked", "control", "twin")]
    nasty = [
        record(Kind(f"{name}{index}", 2.1, family=name), 0, status="failed", reason=name)
        for index, name in enumerate(NASTY)
    ]
    long = [
        record(
            Kind("a_router_with_a_name_that_is_much_too_long_for_any_column_of_a_table" * 2, 2.06),
            seed,
        )
        for seed in range(3)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(
        render_report(boards_of([*records(), *records(competing, match="tokens"), *nasty, *long])),
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def visit(browser: Any, report: Path, width: int = 1440, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(report.as_uri())
    browser.execute_script(
        "try { localStorage.clear() } catch {} delete document.documentElement.dataset.theme"
    )


def column(browser: Any, index: int) -> list[str]:
    rows = "[...document.querySelectorAll('#board0-table tbody tr')].filter(row => !row.hidden)"
    return [
        text.strip()
        for text in browser.execute_script(
            f"return {rows}.map(row => row.cells[arguments[0]].textContent)", index
        )
    ]


def press(browser: Any, index: int) -> str:
    head = f"document.querySelectorAll('#board0-table thead th')[{index}]"
    return browser.execute_script(
        f"{head}.querySelector('button').click(); return {head}.getAttribute('aria-sort')"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_error_and_nothing_overflows(browser: Any, report: Path, width: int, scheme: str):
    visit(browser, report, width, scheme)
    browser.execute_script(
        "document.querySelectorAll('details').forEach(one => { one.open = true })"
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside = (
        "return [...document.querySelectorAll('body *')].filter(one => "
        "!one.closest('.scroll, .hidden, .skip, svg') && "
        f"one.getBoundingClientRect().right > {width} + 1).map(one => one.outerHTML.slice(0, 120))"
    )
    assert browser.execute_script(outside) == []
    assert [
        entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ] == []


def test_the_columns_sort_both_ways_by_value(browser: Any, report: Path):
    visit(browser, report)
    before = column(browser, 2)
    losses = [float(text.split(" ")[0]) for text in before]
    assert press(browser, 2) == "ascending"
    assert [float(text.split(" ")[0]) for text in column(browser, 2)] == sorted(losses)
    assert press(browser, 2) == "descending"
    assert [float(text.split(" ")[0]) for text in column(browser, 2)] == sorted(
        losses, reverse=True
    )
    press(browser, 0)
    names = [name.split(" ")[0] for name in column(browser, 0)]
    assert names == sorted(names, key=lambda name: name.replace("_", " "))
    press(browser, 4)
    found = [text for text in column(browser, 4) if text != "–"]
    differences = [float(text.split(" ")[0].replace("−", "-")) for text in found]
    assert len(differences) > 3 and differences == sorted(differences)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_table_fits_the_screen_and_a_phone_shows_cards(
    browser: Any, report: Path, width: int
):
    visit(browser, report, width)
    script = (
        "const table = document.querySelector('table.first');"
        "return [table.scrollWidth, table.parentElement.clientWidth,"
        " getComputedStyle(table.tBodies[0].rows[0]).display]"
    )
    wide, room, display = browser.execute_script(script)
    assert wide <= room
    assert display == ("block" if width == 390 else "table-row")


def test_sorting_works_from_the_keyboard(browser: Any, report: Path):
    visit(browser, report)
    browser.execute_script("document.querySelectorAll('#board0-table thead button')[3].focus()")
    browser.switch_to.active_element.send_keys("\ue007")
    assert (
        browser.execute_script(
            "return document.querySelectorAll('#board0-table thead th')[3]"
            ".getAttribute('aria-sort')"
        )
        == "ascending"
    )


def test_filters_narrow_the_rows_and_say_how_many_are_left(browser: Any, report: Path):
    visit(browser, report)
    rows = len(column(browser, 0))
    fill = (
        "const form = document.querySelector('form.filters'); "
        "form.elements[arguments[0]][arguments[1]] = arguments[2];"
        "form.dispatchEvent(new Event('input')); return form.querySelector('output').textContent"
    )
    assert browser.execute_script(fill, "find", "value", "moe") == f"2 of {rows} rows"
    assert {name.split(" ")[0] for name in column(browser, 0)} == {"adaptive_moe", "top2_moe"}
    browser.execute_script(fill, "find", "value", "")
    browser.execute_script(fill, "family", "value", "depth")
    assert column(browser, 0) == ["mod"]
    browser.execute_script(fill, "family", "value", "")
    assert browser.execute_script(fill, "ranked", "checked", True) == f"{rows - 3} of {rows} rows"


def test_the_theme_follows_the_system_and_the_button(browser: Any, report: Path):
    colour = "return getComputedStyle(document.body).backgroundColor"
    visit(browser, report, scheme="dark")
    assert browser.execute_script(colour) == "rgb(20, 23, 26)"
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(colour) == "rgb(255, 255, 255)"
    visit(browser, report, scheme="light")
    assert browser.execute_script(colour) == "rgb(255, 255, 255)"


def test_a_link_to_a_router_opens_it(browser: Any, report: Path):
    visit(browser, report)
    browser.execute_script("document.querySelector('#board0-table tbody a').click()")
    assert (
        browser.execute_script("return document.querySelectorAll('details.router[open]').length")
        == 1
    )
