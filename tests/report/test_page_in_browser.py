"""The page of failures in a browser: filter, order, links, without a network or an error."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from mmeb.report.page import write_report

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, run: Path, tmp_path: Path) -> webdriver.Chrome:
    write_report(run, tmp_path / "report.html", examples=5)
    chromium.get((tmp_path / "report.html").as_uri())
    return chromium


def shown(page: webdriver.Chrome, selector: str = "details") -> list[str]:
    found = page.find_elements(By.CSS_SELECTOR, f"{selector}[data-task]")
    return [element.get_attribute("data-task") or "" for element in found if element.is_displayed()]


def log(page: webdriver.Chrome, kind: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = page.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def test_no_error_and_no_request_but_for_the_file(page: webdriver.Chrome) -> None:
    assert log(page, "browser") == []
    requested = [entry["message"] for entry in log(page, "performance") if 'requestWillBeSent"' in entry["message"]]
    assert requested
    assert not [message for message in requested if '"url":"http' in message]
    broken = "return [...document.images].filter((image) => image.complete && !image.naturalWidth).length"
    assert page.execute_script(broken) == 0


def test_the_models_name_is_no_script(page: webdriver.Chrome) -> None:
    assert page.title.startswith("Failures of <script>")
    assert '<script>document.title = "taken"</script>' in page.find_element(By.TAG_NAME, "h1").text


def test_tasks_are_filtered_by_name_and_meta_task(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "name").send_keys("coco")
    assert shown(page) == shown(page, "tr") == ["MSCOCO_t2i"]
    page.find_element(By.ID, "name").send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    page.find_element(By.CSS_SELECTOR, "input[value=vqa]").click()
    assert shown(page) == shown(page, "tr") == ["OK-VQA"]
    assert page.find_element(By.ID, "count").text == "1 of 4 tasks"
    page.find_element(By.ID, "name").send_keys("no such task")
    assert page.find_element(By.ID, "none").is_displayed()


def test_tasks_are_ordered_by_score(page: webdriver.Chrome) -> None:
    before = shown(page)
    Select(page.find_element(By.ID, "order")).select_by_value("score")
    scores = [
        float(row.get_attribute("data-score") or "") for row in page.find_elements(By.CSS_SELECTOR, "tr[data-score]")
    ]
    assert scores == sorted(scores)
    Select(page.find_element(By.ID, "order")).select_by_value("place")
    assert shown(page) == before


def test_the_keyboard_leads_from_the_table_to_a_task(page: webdriver.Chrome) -> None:
    section = page.find_element(By.CSS_SELECTOR, "details[data-task=CIRR]")
    assert section.get_attribute("open") is None
    page.find_element(By.LINK_TEXT, "CIRR").send_keys(Keys.ENTER)
    assert section.get_attribute("open") is not None
    assert page.switch_to.active_element.text.startswith("CIRR")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert section.get_attribute("open") is None


def test_nothing_is_wider_than_a_phone(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "open").click()
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_is_dark(page: webdriver.Chrome) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    for scheme, expected in (("dark", "rgb(16, 19, 24)"), ("light", "rgb(246, 247, 249)")):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert page.execute_script(colour) == expected
