"""The page in a real browser: Chromium, driven through its own driver, without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from search.report import write_report
from tests.pages import make_content
from tests.test_report import dangerous, many_classes, nothing

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver: chromium, chromedriver"
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
A4_PIXELS = 681
"""180 mm, what the margins leave."""
HOSTILE = ('"></script><img src=x onerror="alert(1)">{{7*7}}', "<b>b</b>%{x}", "<a href=x>a</a>")


class Browser:
    """A page in Chromium, with what it asked for and complained of."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        driver.execute_cdp_cmd("Page.enable", {})

    def show(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.scheme(scheme)
        self.width(width)
        self.driver.get_log("performance"), self.driver.get_log("browser")
        self.driver.get(path.as_uri())

    def width(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def scheme(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Addresses that the page asked for, but for the data that it holds itself."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        asked = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        urls = {str(m["params"]["request"]["url"]) for m in asked}
        return {url for url in urls if not url.startswith("data:")}

    def settled(self, script: str) -> Any:
        """What the script answers once it is true; the page has five seconds for that."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 5, 0.05).until(lambda d: d.execute_script(script))


@contextmanager
def started() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    os.environ["SE_OFFLINE"] = "true"  # Selenium's manager downloads nothing
    with started() as driver:
        yield Browser(driver)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_content(), tmp_path_factory.mktemp("page"))[1]


MARKS = """
return Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => [plot.id,
  plot.querySelectorAll('.points path.point, .bars .point, .heatmaplayer image').length]));
"""


def test_it_loads_without_errors_or_requests_and_every_chart_has_its_marks(
    browser: Browser, page: Path
) -> None:
    browser.show(page)
    marks = browser.run(MARKS)
    assert browser.complaints() == []
    assert browser.requests() == {page.as_uri()}
    slices = {f"chart-slice-{n}" for n in range(8)}
    assert set(marks) - slices == {
        "chart-candidates",
        "chart-importances",
        "chart-learning-curves",
        "chart-parallel-coordinates",
        "chart-confusion",
        "chart-calibration",
    }
    # Runs and means of four candidates; six parameters; epochs of 23 trials; 9 axes of each.
    assert marks["chart-candidates"] == 4 * 5 + 4
    assert marks["chart-importances"] == 6
    assert marks["chart-learning-curves"] == 6 * 2 + 6 * 6 + 11 * 18
    assert marks["chart-parallel-coordinates"] == 23 * 9
    assert marks["chart-confusion"] == 1
    assert all(marks[name] for name in marks)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1130, 1180, 1280])
def test_the_page_does_not_scroll_sideways_and_no_chart_is_cut(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.show(page, width, scheme)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return innerWidth") == width
    outside = """
    return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, pre') &&
      e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 99));
    """
    assert browser.run(outside) == []
    cut = """
    return [...document.querySelectorAll('.plot')].filter((plot) =>
      plot.querySelector('svg').getBoundingClientRect().width > plot.clientWidth + 1 ||
      plot.querySelector('svg').getBoundingClientRect().height > plot.clientHeight + 1
    ).map((plot) => plot.id);
    """
    assert browser.run(cut) == []
    assert browser.complaints() == []


def test_charts_grow_and_shrink_with_the_window(browser: Browser, page: Path) -> None:
    browser.show(page)
    width = "return document.querySelector('#chart-importances svg').clientWidth"
    assert browser.run(width) > 700
    browser.width(390)
    shrunk = "document.querySelector('#chart-importances svg').clientWidth < 390"
    assert browser.settled(f"return {shrunk}")


def test_light_and_dark_are_readable_and_charts_follow_a_change(
    browser: Browser, page: Path
) -> None:
    browser.show(page)
    ink = "return getComputedStyle(document.querySelector('#chart-importances .xtick text')).fill"
    text = "return getComputedStyle(document.querySelector('.fine')).color"
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = [browser.run(script) for script in (ink, text, paper)]
    browser.scheme("dark")
    assert browser.settled(f"return (() => {{ {ink} }})() !== {json.dumps(light[0])}")
    dark = [browser.run(script) for script in (ink, text, paper)]
    for colours in (light, dark):
        assert contrast(colours[0], colours[2]) >= 4.5
        assert contrast(colours[1], colours[2]) >= 4.5
    assert luminance(light[2]) > 0.9
    assert luminance(dark[2]) < 0.05


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_confusion_matrix_switches_between_linear_and_logarithmic(
    browser: Browser, page: Path
) -> None:
    browser.show(page)
    shown = "return document.getElementById('chart-confusion').data[0].z"
    pressed = """return [...document.querySelectorAll('.choices button')].map(
      (b) => b.getAttribute('aria-pressed'))"""
    counts = browser.run(shown)
    assert counts == [list(row) for row in make_content().verdict.tested.measures.confusion]  # type: ignore[union-attr]
    browser.run("document.querySelectorAll('.choices button')[1].click()")
    assert browser.run(pressed) == ["false", "true"]
    assert max(max(row) for row in browser.run(shown)) < 2
    browser.run("document.querySelectorAll('.choices button')[0].click()")
    assert browser.run(shown) == counts


def test_a_trial_is_followed_through_the_charts_and_axes_filter(
    browser: Browser, page: Path
) -> None:
    browser.show(page)
    followed = """
    return ['learning-curves', 'parallel-coordinates'].map((name) =>
      document.getElementById('chart-' + name).data.at(-1).x.length);
    """
    point = (
        "document.getElementById('chart-slice-0').emit('plotly_hover', {points: [{customdata: 2}]})"
    )
    browser.run(point)
    # Trial 2 has trained 18 epochs, and passes nine axes.
    assert browser.run(followed) == [18, 9]
    browser.run("document.getElementById('chart-slice-0').emit('plotly_unhover', {})")
    assert browser.run(followed) == [0, 0]
    visible = """
    return document.getElementById('chart-parallel-coordinates').data.slice(0, -1)
      .flatMap((trace) => trace.y).filter((y) => y !== null).length;
    """
    everything = browser.run(visible)
    browser.run(
        "document.getElementById('chart-parallel-coordinates')"
        ".emit('plotly_selected', {points: [{customdata: 2}, {customdata: 3}]})"
    )
    assert browser.run(visible) == 2 * 9 < everything
    browser.run(
        "document.getElementById('chart-parallel-coordinates').emit('plotly_deselect', null)"
    )
    assert browser.run(visible) == everything


def test_a_real_pointer_shows_the_trial_under_it(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.show(page)
    points = browser.driver.find_elements("css selector", "#chart-learning-curves .points path")
    browser.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", points[-1])
    ActionChains(browser.driver).move_to_element(points[-1]).perform()
    # On its way there the pointer passes points of other trials.
    assert browser.settled(
        "return document.querySelector('#chart-learning-curves .hovertext')"
        "?.textContent.includes('trial 19, epoch ')"
    )
    assert browser.run(
        "return document.getElementById('chart-learning-curves').data.at(-1).x.length"
    )


def test_paper_is_light_as_wide_as_a4_and_has_everything_unfolded(
    browser: Browser, page: Path
) -> None:
    browser.show(page, 1280, "dark")
    state = """return {
      folded: document.querySelectorAll('details:not([open])').length,
      widest: Math.max(...[...document.querySelectorAll('.plot svg')].map((s) => s.clientWidth)),
      paper: getComputedStyle(document.body).backgroundColor,
    }"""
    before = browser.run(state)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    printed = browser.run(state)
    assert before["folded"] > 3
    assert printed["folded"] == 0
    assert printed["widest"] <= A4_PIXELS < before["widest"]
    assert luminance(printed["paper"]) > 0.9
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(state) == before
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(pdf["data"]) > 50_000
    assert browser.complaints() == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_inject_nothing(browser: Browser, tmp_path: Path, hostile: str) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    elements = """return Object.entries([...document.querySelectorAll('body *')]
      .filter((e) => !e.closest('svg')).reduce((n, e) => ({...n, [e.tagName]:
      (n[e.tagName] ?? 0) + 1}), {})).sort()"""
    counts = []
    for number, text in enumerate(("harmless", hostile)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write_report(dangerous(text), folder)[1]
        browser.show(path)
        assert browser.complaints() == []
        assert browser.requests() == {path.as_uri()}
        counts.append(browser.run(elements))
    with pytest.raises(NoAlertPresentException):
        browser.driver.switch_to.alert.text  # noqa: B018 - asking is the test
    assert counts[0] == counts[1]
    # Plotly shows the name as it is, and makes neither bold text nor links of it.
    made = "return document.querySelectorAll('svg a, svg tspan[style*=bold]').length"
    assert browser.run(made) == 0
    drawn = "return [...document.querySelectorAll('svg text')].map((e) => e.textContent)"
    assert any(text.startswith(hostile[:8]) for text in browser.run(drawn))
    assert browser.run("return document.title").startswith(hostile)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("make", [nothing, many_classes])
def test_poor_and_long_studies_fit_too(
    browser: Browser, tmp_path: Path, make: Any, width: int
) -> None:
    path = write_report(make(), tmp_path)[1]
    browser.show(path, width)
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
