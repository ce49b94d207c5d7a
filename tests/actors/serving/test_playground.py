"""The playground in a real browser, on a desk and on a phone; skipped where there is no Chromium."""

import shutil

import pytest

from tests.actors.serving.test_clients import listening

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENS = {"desk": {"width": 1100, "height": 900}, "phone": {"width": 375, "height": 800}}


@pytest.fixture(scope="module")
def browser(published, chats):  # made before: Playwright leaves its event loop running in this thread
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=SCREENS)
def page(browser, request):
    """A page that must not complain."""
    opened, complaints = browser.new_page(viewport=SCREENS[request.param]), []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    yield opened
    opened.close()
    assert [line for line in complaints if "401" not in line and "422" not in line] == []


def test_a_text_is_asked_about_and_shown(page, site):
    with listening(site().app) as url:
        page.goto(url)
        page.wait_for_selector("#here")
        assert "cheap (1), dear (4)" in page.inner_text("#about")
        before = page.get_attribute("#here", "cx")
        page.locator("#rate").fill(page.get_attribute("#rate", "max"))
        assert page.inner_text("#rate-value") == "0.2"
        assert page.get_attribute("#here", "cx") != before or "1 expert" in page.inner_text("#expected")
        page.select_option("#mode", "full")
        page.click("#ask")
        page.wait_for_selector("#steps li:nth-child(2)")
        assert page.inner_text("#label") in {"negative", "positive"}
        assert "everyone was asked" in page.inner_text("#facts")
        assert page.locator("#scores .bar").count() == 2
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.fill("#cost", "0.1")
        page.click("#ask")
        page.wait_for_function("document.getElementById('error').textContent")
        assert "costs as little as the budget" in page.inner_text("#error")


def test_a_key_is_asked_for(page, site, monkeypatch):
    monkeypatch.setenv("KEYS", "secret")
    with listening(site(access={"keys_env": "KEYS"}).app) as url:
        page.goto(url)
        page.wait_for_selector("#key-row:not([hidden])")
        page.fill("#key", "secret")
        page.keyboard.press("Tab")
        page.wait_for_selector("#here")
        page.click("#ask")
        page.wait_for_selector("#answer:not([hidden])")


def test_language_models_are_played_with_too(page, chat_site):
    with listening(chat_site().app) as url:
        page.goto(url)
        page.wait_for_selector("#here")
        page.click("#ask")
        page.wait_for_selector("#answer:not([hidden])")
        assert "Said by" in page.inner_text("#facts")
