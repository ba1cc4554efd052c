"""The page in headless Chromium: silent, alone, fitting at three widths in light and dark, reachable by keyboard."""

import json
import shutil

import pytest

from art_lbgat.report import write_report
from tests.report.cases import digits, full


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver is installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(service=Service(executable_path=driver), options=options)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {"digits": digits(), "full": full(" <script>alert(1)</script> " + "a" * 60)}
    return {name: write_report(folder / f"{name}.html", content) for name, content in made.items()}


def show(browser, path, width, scheme):
    """The page, and the addresses that were asked for while it loaded."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("performance")
    browser.get(path.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("name", ["digits", "full"])
def test_silent_alone_and_fitting(browser, pages, name, width, scheme):
    path = pages[name]
    browser.get_log("browser")
    asked = show(browser, path, width, scheme)
    assert path.as_uri() in asked
    assert [url for url in asked if url != path.as_uri() and not url.startswith("data:")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    page = "return [document.documentElement.scrollWidth, window.innerWidth]"
    for prepare in ("", "document.querySelectorAll('details').forEach(d => d.open = true);"):
        across, wide = browser.execute_script(prepare + page)
        assert across <= wide == width
    style = "return getComputedStyle(document.querySelector('.answer')).borderLeftWidth"
    assert browser.execute_script(style) == "4px"  # the policy lets the page's own style in


def test_the_keyboard_reaches_everything_and_opens_the_data(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, pages["digits"], 1280, "light")
    wanted = browser.execute_script("return document.querySelectorAll('summary, a, .scroll').length")
    closed = browser.execute_script("return document.querySelectorAll('details .scroll').length")
    where = "const e = document.activeElement; return [e.className || e.tagName, getComputedStyle(e).outlineStyle, e.href || '']"
    seen = []
    for _ in range(wanted - closed):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        seen.append(browser.execute_script(where))
    assert seen[0][0] == "skip"
    assert seen[0][2].endswith("#main")
    assert [each for each in seen if each[1] == "none"] == []
    details = browser.execute_script("return document.querySelectorAll('details').length")
    assert [each[0] for each in seen].count("SUMMARY") == details
    browser.execute_script("document.querySelector('summary').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script("return document.querySelector('details').open")


def test_a_policy_that_holds(browser, pages, tmp_path):
    """The same page with a script put into it by force: the policy stops it."""
    forced = tmp_path / "forced.html"
    text = pages["digits"].read_text(encoding="utf-8")
    forced.write_text(text.replace("</main>", "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x.png'></main>"),
                      encoding="utf-8")  # fmt: skip
    asked = show(browser, forced, 1280, "light")
    assert browser.title == "LBGAT on the digits"
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert any("script" in message for message in refused)
    assert any("127.0.0.1:9" in message for message in refused)
    assert not browser.execute_script("return performance.getEntriesByType('resource').some(e => e.transferSize > 0)")
    assert forced.as_uri() in asked
