"""report.html in a real browser: what it asks for, and what a person can do with it.

Needs Chromium and its driver (Debian: apt-get install chromium chromium-driver).
"""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from test_report import RECORDS, SCRIPT, run_with_regions

from command import fasta, made_bundle, random_reads, table
from made_runs import Chunk, made_paired_run, made_run
from virnucpro.report import remake
from virnucpro.run.predict import predict

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
wait = pytest.importorskip("selenium.webdriver.support.wait", reason="selenium is not installed")
By, Keys = (pytest.importorskip(f"selenium.webdriver.common.{name}") for name in ("by", "keys"))
By, Keys = By.By, Keys.Keys

SIZES = ("small", "empty", "one", "10,000", "several")
WINDOW = 1200, 1000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium or its driver is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
        f"window-size={WINDOW[0]},{WINDOW[1]}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Pages of real runs of all sizes, and of several side by side."""
    folder = tmp_path_factory.mktemp("pages")
    made_bundle(folder / "km")
    inputs = {
        "small": fasta(RECORDS),
        "empty": b"",
        "one": fasta([RECORDS[4]]),
        "10,000": random_reads(10_000, 150),
    }
    for name, text in inputs.items():
        (folder / f"{name}.fa").write_bytes(text)
        predict(folder / f"{name}.fa", folder / "km", folder / name, threshold=0.45)
    out = folder / "several.html"
    remake([folder / name for name in inputs], out)
    return {name: folder / name / "report.html" for name in inputs} | {"several": out}


class Page:
    """A page in the browser, with all that it did so far."""

    def __init__(self, browser, path: Path) -> None:
        self.browser = browser
        browser.get("about:blank")  # its first tab asks for files of its own
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.set_window_size(*WINDOW)
        browser.get(path.as_uri())
        script = "return document.readyState === 'complete' && location.protocol === 'file:'"
        wait.WebDriverWait(browser, 10).until(lambda opened: opened.execute_script(script))

    def all(self, selector: str) -> list:
        """The elements that can be seen."""
        return [
            e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()
        ]

    def one(self, selector: str):
        (element,) = self.all(selector)
        return element

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def rows(self) -> list[list[str]]:
        return self.browser.execute_script(
            "return [...document.querySelectorAll('article:not([hidden]) [data-table=records]"
            " tbody tr, main [data-table=records] tbody tr')]"
            ".map(r => [...r.cells].map(c => c.textContent))"
        )

    def bars(self) -> int:
        """How many chunks are drawn."""
        return self.browser.execute_script(
            "return document.querySelector('[data-plot=track] g[aria-label=rect]')"
            ".querySelectorAll('rect').length"
        )

    @property
    def requests(self) -> list[str]:
        """Addresses asked for, but by the browser's own first tab."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("chrome")]

    @property
    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_any_size_opens_alone(browser, pages, size):
    page = Page(browser, pages[size])
    assert page.requests == [pages[size].as_uri()]
    assert page.errors == []
    assert pages[size].stat().st_size < 2_500_000
    for width in (1200, 500):
        browser.set_window_size(width, 900)
        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= window.innerWidth"
        )
    assert page.errors == []


def test_nothing_but_our_scripts_runs(browser, pages):
    """A name that is a script is text, and one that got in would be stopped by the policy."""
    page = Page(browser, pages["small"])
    assert SCRIPT in [row[1] for row in page.rows()]
    assert browser.execute_script("return document.querySelectorAll('b').length") < 30
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hit = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x';"
        "document.body.append(i);"
    )
    assert browser.execute_script("return window.hit") is None
    assert len([error for error in page.errors if "Content Security Policy" in error]) == 2


def test_search_filter_sort_and_pages(browser, pages):
    page = Page(browser, pages["10,000"])
    contigs = table(pages["10,000"].with_name("contigs.tsv"))
    in_order = sorted(contigs, key=lambda row: (-float(row["p_virus"]), int(row["record"])))
    assert [row[1] for row in page.rows()] == [row["contig"] for row in in_order[:50]]
    page.click('[data-page="1"]')
    assert [row[1] for row in page.rows()] == [row["contig"] for row in in_order[50:100]]
    search = page.one('input[type="search"]')
    search.send_keys("R777")
    expected = [row["contig"] for row in in_order if "r777" in row["contig"]]
    assert [row[1] for row in page.rows()] == expected
    assert page.one('[data-part="found"]').text == f"{len(expected)} found"
    page.click('[data-call="virus"]')
    virus = [r["contig"] for r in in_order if "r777" in r["contig"] and r["call"] == "virus"]
    assert [row[1] for row in page.rows()] == virus
    assert 0 < len(virus) < len(expected)
    page.all(".records thead button")[1].click()
    assert [row[1] for row in page.rows()] == sorted(virus)
    page.all(".records thead button")[1].click()
    assert [row[1] for row in page.rows()] == sorted(virus, reverse=True)
    assert page.one("[aria-sort]").get_attribute("aria-sort") == "descending"
    search.send_keys("no such name")
    assert page.rows() == []
    assert page.one('[data-part="page"]').text == "No record fits."
    assert page.errors == []


def test_pairs_have_a_table_of_their_own(browser, tmp_path):
    scores = [(0.9, 0.8), (0.4, 0.7), (0.6, None), (0.2, 0.1), (0.95, 0.3)]
    names = ["first", "second", "A00551:128:HJ2YVDSXX:2:1101:1709:6963", "others", "<b>last"]
    pairs = [(name, *of) for name, of in zip(names, scores, strict=True)]
    files = made_paired_run(tmp_path, [*pairs, *((f"more{i}", 0.5, 0.5) for i in range(60))])
    page = Page(browser, remake([files.run_dir]))
    place = '[data-table="pairs"]'

    def rows() -> list[list[str]]:
        return browser.execute_script(
            f"return [...document.querySelectorAll('{place} tbody tr')]"
            ".map(r => [...r.cells].map(c => c.textContent))"
        )

    assert "All 64 pairs called virus." in page.one(f"{place} .lead").text
    assert rows()[:4] == [
        ["1 and 2", names[0], "0.850", "0.900", "0.800", "both virus"],
        ["9 and 10", names[4], "0.625", "0.950", "0.300", "mates disagree"],
        ["5 and 6", names[2], "0.600", "0.600", "not called", "one mate only"],
        ["3 and 4", names[1], "0.550", "0.400", "0.700", "mates disagree"],
    ]
    records = page.rows()
    page.click(f'{place} [data-page="1"]')
    assert len(rows()) == 14
    page.click(f'{place} [data-call="mates disagree"]')
    assert [row[1] for row in rows()] == [names[4], names[1]]
    page.all(f"{place} thead button")[4].click()
    assert [row[1] for row in rows()] == [names[1], names[4]]
    page.click(f'{place} [data-call="all"]')
    page.one(f"{place} input").send_keys("1709")
    assert [row[1] for row in rows()] == [names[2]]
    assert page.one(f'{place} [data-part="found"]').text == "1 found"
    page.one(f"{place} input").send_keys("no such name")
    assert page.one(f'{place} [data-part="page"]').text == "No pair fits."
    assert page.rows() == records  # of the other table
    assert page.errors == []


def test_a_long_name_keeps_its_end_and_is_copied_whole(browser, tmp_path):
    names = [f"A00551:128:HJ2YVDSXX:2:1101:1709:{i}" for i in (6963, 6964)]
    page = Page(browser, remake([made_run(tmp_path, [(n, [Chunk()]) for n in names]).run_dir]))
    for cell, name in zip(page.all(".records td.name"), names, strict=True):
        copied = "getSelection().selectAllChildren(arguments[0]); return getSelection().toString()"
        assert browser.execute_script(copied, cell) == name
        end = "const r = document.createRange(); r.selectNodeContents(arguments[0].lastChild);"
        end += "return r.getBoundingClientRect().right"
        place = cell.find_element(By.CLASS_NAME, "shortened")
        assert browser.execute_script(end, place) <= cell.rect["x"] + cell.rect["width"]


def test_a_click_opens_a_long_name(browser, tmp_path):
    name = "NODE_1_" * 30
    run = made_run(tmp_path, [(name, [Chunk()])])
    page = Page(browser, remake([run.run_dir]))
    cell = page.one(".records td.name")
    place, before = cell.find_element(By.CLASS_NAME, "shortened"), cell.rect["height"]
    cut = "const [s] = arguments[0].children; return s.scrollWidth > s.clientWidth + 1"
    assert browser.execute_script(cut, place)
    place.click()
    assert cell.rect["height"] > 2 * before
    inside = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
    assert browser.execute_script(inside, place)
    assert place.text.replace("\n", "") == name
    place.click()
    assert cell.rect["height"] == before
    assert page.errors == []


def test_no_letter_of_a_long_name_is_cut_in_half(browser, tmp_path):
    names = ["\N{DNA DOUBLE HELIX}" * 30 + "x" * i for i in (0, 1)]
    page = Page(browser, remake([made_run(tmp_path, [(n, [Chunk()]) for n in names]).run_dir]))
    for place, name in zip(page.all(".records td.name .shortened"), names, strict=True):
        parts = "return [...arguments[0].childNodes].map((part) => encodeURI(part.textContent))"
        beginning, end = map(unquote, browser.execute_script(parts, place))
        assert beginning + end == name
        assert len(end) == 14


def test_a_record_can_be_picked_and_zoomed_and_its_chunks_told(browser, pages):
    page = Page(browser, pages["small"])
    calls = table(pages["small"].with_name("calls.tsv"))
    long = [row for row in calls if row["contig"] == "long"]
    (link,) = [b for b in page.all(".records td button") if b.text == "long"]
    link.click()
    assert page.one('[data-part="caption"]').text.startswith("long · record 5 · 9,000 nt")
    assert page.bars() == len(long) == 18
    plot = page.one('[data-plot="track"]')
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    told = page.one('[data-part="chunk"]').text
    score, before, after = (f"{float(long[i]['p_virus']):.3f}" for i in (2, 1, 3))
    for part in ("3 of 18", "1,000\N{EN DASH}1,500", score, f"{before}, {after}", long[2]["call"]):
        assert part in told
    for _ in range(2):
        page.click('[data-zoom="0.5"]')
    assert 4 <= page.bars() <= 7
    page.click('[data-zoom="all"]')
    assert page.bars() == 18
    strip = page.one('[data-plot="strip"] .overlay')
    webdriver.ActionChains(browser).move_to_element(strip).click_and_hold().move_by_offset(
        strip.size["width"] // 4, 0
    ).release().perform()
    assert 4 <= page.bars() <= 7
    page.click('[data-step="1"]')
    assert not page.one('[data-part="caption"]').text.startswith("long ")
    assert page.errors == []


def test_a_chunk_is_told_where_the_mouse_is_with_what_to_beware_of(browser, tmp_path):
    frames = ["F1", "F1,R2", "", "R3", "F2"]
    scores = [0.1, 0.9, None, 0.2, 0.3]
    chunks = [
        Chunk(p, "ok" if p else "no_open_frame", f, 500 if p != 0.3 else 120)
        for p, f in zip(scores, frames, strict=True)
    ]
    files = made_run(tmp_path, [("a", chunks)])
    page = Page(browser, remake([files.run_dir]))
    plot = page.one('[data-plot="track"]')
    left, width = 52, plot.size["width"] - 64

    def told_at(share: float) -> str:
        across = left + share * width - plot.size["width"] / 2
        webdriver.ActionChains(browser).move_to_element_with_offset(plot, across, -60).perform()
        return page.one('[data-part="chunk"]').text

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    second = told_at(1.5 / 4.24)
    assert "2 of 5" in second
    assert "F1, R2" in second
    assert "Alone: no neighbour was called virus." in second
    assert "not called: no open frame" in told_at(2.5 / 4.24)
    assert "Short: the bundle was made for chunks of 500 nt." in told_at(4.15 / 4.24)
    assert len(page.all('[data-plot="track"] g[aria-label="bar"] rect')) == 5
    assert page.errors == []


def test_regions_stand_above_their_chunks(browser, tmp_path):
    page = Page(browser, run_with_regions(tmp_path) / "report.html")
    caption = page.one('[data-part="caption"]').text
    assert "Viral regions (from 0): 15,000\N{EN DASH}21,000 with 12 of 12 chunks virus" in caption
    bars = page.all('[data-plot="track"] g[fill="var(--virus)"] rect')
    chunks = page.all('[data-plot="track"] g[aria-label="rect"]')[0].find_elements(
        By.TAG_NAME, "rect"
    )
    for bar, (first, last) in zip(bars, ((30, 41), (82, 90)), strict=True):
        assert bar.rect["x"] == pytest.approx(chunks[first].rect["x"], abs=2)
        end = chunks[last].rect["x"] + chunks[last].rect["width"]
        assert bar.rect["x"] + bar.rect["width"] == pytest.approx(end, abs=2)
        assert bar.rect["y"] + bar.rect["height"] < chunks[first].rect["y"]
    assert page.errors == []


def test_scores_of_chunks_or_records(browser, pages):
    page = Page(browser, pages["small"])
    drawn = [len(page.all('[data-plot="scores"] g[aria-label="rect"] rect'))]
    page.click('[data-of="records"]')
    drawn.append(len(page.all('[data-plot="scores"] g[aria-label="rect"] rect')))
    assert drawn[0] > drawn[1] > 0
    assert page.one('[data-of="records"]').get_attribute("aria-pressed") == "true"


def test_one_of_several_runs_is_shown(browser, pages):
    page = Page(browser, pages["several"])
    assert [e.text for e in page.all("article h2.name")] == ["small"]
    for index, name in ((3, "10,000"), (1, "empty"), (2, "one")):
        page.all("#choose-run option")[index].click()
        assert [e.text for e in page.all("article h2.name")] == [name]
        assert len(page.rows()) == {"10,000": 50, "empty": 0, "one": 1}[name]
    assert page.errors == []


def test_dark_and_printed(browser, pages):
    page = Page(browser, pages["small"])
    paper = "return getComputedStyle(document.body).backgroundColor"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    assert browser.execute_script(paper) == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert browser.execute_script(paper) == "rgb(21, 24, 27)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark | {"media": "print"})
    assert browser.execute_script(paper) == "rgb(255, 255, 255)"
    assert page.all(".screen, .pages button") == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_the_note_of_a_record_stands_under_the_name_of_its_column(browser, tmp_path):
    page = Page(browser, remake([made_run(tmp_path, [("a", [Chunk(length_nt=120)])]).run_dir]))
    heads = [head.text for head in page.all('[data-table="records"] thead th')]
    cells = [cell.text for cell in page.all('[data-table="records"] tbody tr > *')]
    assert dict(zip(heads, cells, strict=True))["note"] == "short"
    assert page.errors == []
