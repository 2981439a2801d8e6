"""The site is built strictly, and read in a real browser: on a telephone and a desk, in light and
dark."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import chromium
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Its folder; a broken link, a missing page or an anchor that leads nowhere ends the build."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder]
    done = subprocess.run(mkdocs, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = chromium.start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def test_examples_of_docstrings_are_shown_as_code(site):
    page = (site / "api" / "index.html").read_text("utf-8")
    assert "&gt;&gt;&gt;" in page
    assert "<blockquote>" not in page


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light")])
def test_no_page_is_wider_than_its_window(width, scheme, address, driver):
    chromium.set_window(driver, width, scheme)
    for page in PAGES:
        driver.get(f"{address}/{'' if page == 'index' else f'{page}/'}")
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, page
        assert driver.find_element(By.TAG_NAME, "h1").text, page


def test_the_site_finds_what_is_looked_for(address, driver):
    chromium.set_window(driver, 1280)
    driver.get(address)
    driver.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys("matched control")
    wait = WebDriverWait(driver, 30, 0.1)
    found = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".md-search-result__link"))
    assert any("/prove/" in link.get_attribute("href") for link in found)


def test_the_site_asks_no_other_host(address, driver):
    driver.get_log("performance")
    driver.get(address)
    asked = [entry["message"] for entry in driver.get_log("performance")]
    sent = [message for message in asked if 'Network.requestWillBeSent"' in message]
    assert sent
    assert not [message for message in sent if '"url":"https://' in message]
