"""The page in headless Chromium: silent, alone, readable at two widths in light and dark, reachable by keyboard."""

import json
import shutil

import pytest

from art_lbgat.report import write_report
from tests.report.cases import digits, full

WIDTHS, SCHEMES = (390, 1280), ("light", "dark")
# WCAG 2.2: relative luminance, and the contrast of a text with the first background under it that is not transparent.
CONTRASTS = """
const part = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const ground = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const found = {};
for (const e of document.querySelectorAll(arguments[0])) {
  const style = getComputedStyle(e), name = e.closest("svg") ? style.fill : style.color;
  if (e.getAttribute("font-weight") || !e.textContent.trim()) continue;
  found[e.tagName + " " + name] = ratio(numbers(name), ground(e));
}
return found;
"""
MARKS = """
const found = {};
for (const e of document.querySelectorAll(".chart path, .chart use"))
  for (const name of ["fill", "stroke"]) if ((e.getAttribute(name) || "").match(/--(c|dot)|currentColor/))
    found[e.getAttribute(name)] = getComputedStyle(e)[name];
return [found, getComputedStyle(document.body).backgroundColor];
"""
OUTSIDE = """
const bad = [];
for (const svg of document.querySelectorAll("svg[role=img]")) {
  const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  for (const [text, r] of texts)
    if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1) bad.push("clipped: " + text);
  const ticks = [...svg.querySelectorAll("text:not([font-weight])")].map(t => [t.textContent, t.getBoundingClientRect()]);
  for (let i = 0; i < ticks.length; i++) for (let j = i + 1; j < ticks.length; j++) {
    const [a, b] = [ticks[i][1], ticks[j][1]];
    if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom) bad.push(ticks[i][0] + " over " + ticks[j][0]);
  }
}
return bad;
"""


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


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [*WIDTHS, 360])
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
    assert browser.execute_script(OUTSIDE) == []
    style = "return getComputedStyle(document.querySelector('.answer')).borderLeftWidth"
    assert browser.execute_script(style) == "4px"  # the policy lets the page's own style in


@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts_and_marks_stand_out(browser, pages, scheme):
    show(browser, pages["full"], 1280, scheme)
    found = browser.execute_script(CONTRASTS, "h1,h2,h3,p,a,th,td,caption,summary,figcaption,code,li,strong,svg text")
    assert len(found) > 10
    assert {name: round(ratio, 2) for name, ratio in found.items() if ratio < 4.5} == {}
    marks, ground = browser.execute_script(MARKS)
    assert len(marks) >= 4
    luminance = {name: relative_luminance(colour) for name, colour in {**marks, "ground": ground}.items()}
    base = luminance.pop("ground")
    ratios = {name: (max(v, base) + 0.05) / (min(v, base) + 0.05) for name, v in luminance.items()}
    assert {name: ratio for name, ratio in ratios.items() if ratio < 3} == {}
    assert (base < 0.1) == (scheme == "dark")


def relative_luminance(colour):
    parts = [int(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


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
