"""The page in headless Chromium: it works, stays quiet, and asks the network for nothing."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from support.runs import NAMES, report, write

from mmeb.leaderboard.board import load_board
from mmeb.leaderboard.page import page
from mmeb.results import published

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1300,1000"),
)
ODD = [
    "<script>window.hurt=1</script>",
    "<img src=x onerror=window.hurt=1>",
    "a \"b\" 'c' `d`",
    "😀 👩‍💻",
    "نموذج",
    "o/r/g",
]

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="Chromium and its driver are not installed: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def published_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    published.write_all(folder / "results")
    write(folder / "results" / "part.json", report(name="part", tasks=NAMES[:30]))
    (folder / "index.html").write_text(page(load_board(folder / "results")), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture
def opened(chromium: webdriver.Chrome, published_page: Path) -> Iterator["Page"]:
    """The page of the published tables; whatever a test does on it, it stays quiet and offline."""
    opened = Page(chromium, published_page)
    yield opened
    opened.check_quiet()


class Page:
    """A page in a browser, in the words of its reader."""

    def __init__(self, browser: webdriver.Chrome, path: Path) -> None:
        self.browser = browser
        for log in ("browser", "performance"):
            browser.get_log(log)  # type: ignore[no-untyped-call]
        browser.get(path.as_uri())
        self.until(lambda: self.script("return document.documentElement.dataset.ready") == "yes")

    def script(self, source: str, *arguments: Any) -> Any:
        return self.browser.execute_script(source, *arguments)

    def until(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, 60).until(lambda _: condition())

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def press(self, selector: str, text: str) -> None:
        button = next(found for found in self.all(selector) if found.text.startswith(text))
        self.script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def column(self, title: str) -> list[str]:
        """The texts of a column of the table, as it stands."""
        titles = [header.text for header in self.all("#board thead th")]
        place = titles.index(title) + 1
        return [cell.text for cell in self.all(f"#board tbody td:nth-child({place})")]

    def models(self) -> list[str]:
        return [cell.text for cell in self.all("#board tbody td.model bdi")]

    def draw(self, part: str) -> None:
        """Scroll to a chart and wait until it is drawn."""
        self.script("document.getElementById(arguments[0]).scrollIntoView()", part)
        self.until(lambda: self.all(f"#{part}-chart .main-svg"))

    def traces(self, part: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.script(
            f"return document.getElementById('{part}-chart').data.map(t => JSON.parse(JSON.stringify(t)))"
        )
        return found

    def check_quiet(self) -> None:
        assert self.browser.get_log("browser") == []  # type: ignore[no-untyped-call]
        requests = []
        for entry in self.browser.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requests.append(message["params"]["request"]["url"])
        assert [url for url in requests if not url.startswith(("file:", "blob:", "data:", "chrome:"))] == []


def test_the_table_starts_sorted_by_the_overall_average(opened: Page) -> None:
    scores = [float(text) for text in opened.column("Overall") if "/" not in text]
    assert len(scores) == 33
    assert scores == sorted(scores, reverse=True)
    assert opened.models()[0] == "Qwen3-VL-Embedding-8B (MMEB leaderboard file)"


def test_a_click_on_a_title_sorts_and_another_one_turns_it_round(opened: Page) -> None:
    title = next(header for header in opened.all("#board thead th") if header.text == "Grounding")
    title.click()
    falling = [float(text) for text in opened.column("Grounding") if "/" not in text]
    assert falling == sorted(falling, reverse=True)
    title.click()
    rising = [float(text) for text in opened.column("Grounding") if "/" not in text]
    assert rising == falling[::-1]


def test_the_keyboard_sorts_too(opened: Page) -> None:
    title = next(header for header in opened.all("#board thead th") if header.text == "VQA")
    target = title.find_element(By.CSS_SELECTOR, "[tabindex='0']") if not title.get_attribute("tabindex") else title
    target.send_keys(Keys.ENTER)
    scores = [float(text) for text in opened.column("VQA") if "/" not in text]
    assert scores == sorted(scores, reverse=True)


def test_the_filter_leaves_what_it_finds(opened: Page) -> None:
    opened.find(".dt-search input").send_keys("gme-")
    assert opened.until(lambda: len(opened.models()) == 2)
    assert all("gme-" in name for name in opened.models())


def test_rows_are_filtered_by_their_origin(opened: Page) -> None:
    opened.press("#kinds button", "averages only")
    opened.press("#kinds button", "published")
    assert opened.until(lambda: opened.models() == ["part"])


def test_views_show_meta_tasks_and_the_split(opened: Page) -> None:
    def titles() -> list[str]:
        return [header.text for header in opened.all("#board thead th")][5:]

    opened.press("#views button", "Grounding")
    assert titles() == ["Grounding", "MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"]
    opened.press("#views button", "IND")
    assert len(titles()) == 21
    opened.press("#views button", "OOD")
    assert len(titles()) == 17
    opened.press("#views button", "All 36")
    assert titles() == ["Overall", *NAMES]


def test_an_incomplete_model_shows_its_coverage(opened: Page) -> None:
    place = opened.models().index("part")
    assert opened.column("Overall")[place] == "30/36"


def test_selected_models_are_compared(opened: Page) -> None:
    opened.draw("compare")
    assert len(opened.traces("compare")) == 3
    opened.script("document.querySelector('#selected button').click()")
    opened.script("document.querySelector('[aria-label=\"Compare SigLIP\"]').click()")
    names = [trace["name"] for trace in opened.traces("compare")]
    assert "SigLIP" in names
    assert len(names) == 3
    opened.press("#compare-views button", "36 tasks")
    (siglip,) = [trace for trace in opened.traces("compare") if trace["name"] == "SigLIP"]
    assert siglip["y"] == list(NAMES)
    assert siglip["x"][0] == 45.4
    opened.press("#compare summary", "The figures")
    assert "45.4" in opened.find("#compare-table").text


def test_at_most_six_models_are_compared(opened: Page) -> None:
    opened.draw("compare")
    opened.script("[...document.querySelectorAll('.pick')].slice(0, 10).forEach(b => b.checked || b.click())")
    assert len(opened.all("#selected li")) == 6
    assert len(opened.all(".pick:checked")) == 6


def test_the_heat_map_follows_the_table(opened: Page) -> None:
    opened.draw("heat")
    (trace,) = opened.traces("heat")
    assert len(trace["z"]) == 14
    assert trace["x"] == list(NAMES)
    assert trace["z"][0][0] == 81.9
    opened.script("const i = document.querySelector('.dt-search input'); i.value = 'VLM2Vec-V';"
                  "i.dispatchEvent(new Event('input'))")  # fmt: skip
    assert opened.until(lambda: len(opened.traces("heat")[0]["z"]) == 3)


def test_score_against_size_shows_every_model_that_has_both(opened: Page) -> None:
    opened.draw("size")
    _, *kinds = opened.traces("size")
    assert sum(len(trace["x"]) for trace in kinds) == 33
    assert opened.script("return document.getElementById('size-chart').layout.xaxis.type") == "log"


def test_what_does_not_add_up_is_told_on_request(opened: Page) -> None:
    opened.script("document.querySelector('[aria-label=\"What does not add up in SigLIP\"]').click()")
    assert "stated retrieval average 31.6" in opened.find("#about").text
    opened.find("#about button").click()
    assert not opened.find("#about").is_displayed()


def test_light_and_dark_by_the_system_and_by_choice(opened: Page) -> None:
    def background() -> str:
        return str(opened.script("return getComputedStyle(document.body).backgroundColor"))

    def prefer(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    prefer("light")
    light = background()
    prefer("dark")
    assert opened.until(lambda: background() != light)
    dark = background()
    opened.press("#theme", "Theme: system")
    assert background() == light
    opened.press("#theme", "Theme: light")
    assert background() == dark
    opened.press("#theme", "Theme: dark")


def test_a_phone_shows_the_page_without_scrolling_sideways(opened: Page) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for part in ("compare", "heat", "size"):
            opened.draw(part)
        assert opened.script("return document.documentElement.scrollWidth") == 390
        opened.script("window.scrollTo(0, 0)")
        assert opened.find("#board tbody td.model").is_displayed()
    finally:
        opened.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def says(opened: Page, part: str, text: str) -> bool:
    return opened.find(f"#{part}-chart").text == text


def test_a_page_with_nothing_to_draw_says_so(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    write(tmp_path / "results" / "x.json", {"Model": "averages alone", "VQA": 50.0})
    (tmp_path / "index.html").write_text(page(load_board(tmp_path / "results")), encoding="utf-8")
    opened = Page(chromium, tmp_path / "index.html")
    said = {
        "compare": "No model is selected.",
        "heat": "No model in the table has scores by task.",
        "size": "No model has both a size and this average.",
    }
    for part, text in said.items():
        opened.script("document.getElementById(arguments[0]).scrollIntoView()", part)
        assert opened.until(partial(says, opened, part, text))
    opened.script("document.querySelector('.pick').click()")
    opened.draw("compare")
    opened.check_quiet()


def shows(opened: Page, name: str) -> bool:
    return name in opened.models()


def test_500_models_of_odd_names_stay_names_and_the_page_stays_usable(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    for number in range(500):
        address = "javascript:window.hurt=1" if number % 2 else 'https://example.org/"onclick="window.hurt=1'
        name = ODD[number] if number < len(ODD) else f"model {number}"
        scores = {"hit@1": round(0.9 - number / 1000, 3), "num_pred": 1000, "num_data": 1000}
        image = dict.fromkeys(NAMES[: 36 - number % 2], scores)
        metadata = {"model_name": name, "model_size": 1 + number / 100, "url": address}
        write(tmp_path / "results" / f"{number}.json", {"metadata": metadata, "metrics": {"image": image}})
    (tmp_path / "index.html").write_text(page(load_board(tmp_path / "results")), encoding="utf-8")
    opened = Page(chromium, tmp_path / "index.html")
    assert "Showing 1 to 50 of 500" in opened.find(".dt-info").text
    for name in ODD:
        opened.script("const i = document.querySelector('.dt-search input'); i.value = arguments[0];"
                      "i.dispatchEvent(new Event('input'))", name)  # fmt: skip
        assert opened.until(partial(shows, opened, name))
        opened.script("document.querySelector('#board .pick').click(); document.querySelector('#board .info').click()")
        assert opened.find("#about-title").text == name
        opened.find("#about button").click()
    for part in ("compare", "heat", "size"):
        opened.draw(part)
    assert opened.script("return window.hurt") is None
    assert not [link for link in opened.all("#board a") if "javascript" in str(link.get_attribute("href"))]
    opened.check_quiet()
