"""A headless Chromium that opens pages, waits for a text, clicks and takes pictures, by its own protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """The one page of a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, count(1)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def run(self, script: str) -> Any:
        """What a script comes to."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def open(self, url: str, *texts: str) -> str:
        """Opens a page and gives its text, once all of these are in it."""
        self.ask("Page.navigate", url=url)
        return self.wait(*texts)

    def wait(self, *texts: str, seconds: float = 60.0) -> str:
        """Gives the page's text, once all of these are in it."""
        limit, shown = time.monotonic() + seconds, ""
        while time.monotonic() < limit:
            shown = str(self.run("document.body ? document.body.innerText : ''"))
            if all(text in shown for text in texts):
                time.sleep(0.5)  # what is drawn last
                return shown
            time.sleep(0.2)
        raise TimeoutError(f"the page does not show {texts}; it shows:\n{shown}")

    def click(self, text: str) -> None:
        """Clicks the last thing that is seen and has this text, and nothing else in it."""
        self.wait(text)
        found = self.run(
            "(() => { const own = e => e.innerText && e.innerText.trim() === " + json.dumps(text) + ";"
            " const all = [...document.querySelectorAll('*')].filter("
            "e => own(e) && e.getClientRects().length && ![...e.children].some(own));"
            " if (all.length) all[all.length - 1].click(); return all.length })()"
        )
        if not found:
            raise LookupError(f"the page has nothing to click that says {text!r}")

    def fill(self, *texts: str) -> None:
        """Types into the text fields that are seen, one after the other."""
        for place, text in enumerate(texts):
            self.run(
                "(() => { const seen = e => e.getClientRects().length;"
                f" const field = [...document.querySelectorAll('textarea')].filter(seen)[{place}];"
                " field.focus(); field.select() })()"
            )
            self.ask("Input.insertText", text=text)

    def choose(self, value: str) -> None:
        """Chooses a value in the last list that offers it."""
        self.run(
            "(() => { const offers = e => [...e.options].some(option => option.value === " + json.dumps(value) + ");"
            " const list = [...document.querySelectorAll('select')].filter(offers).at(-1);"
            f" list.value = {json.dumps(value)};"
            " for (const name of ['input', 'change']) list.dispatchEvent(new Event(name, {bubbles: true})) })()"
        )

    def shoot(self, path: Path) -> Path:
        """Takes a picture of what is seen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def browsing(width: int = 1440, height: int = 1000) -> Iterator[Page]:
    """Runs a Chromium for as long as the block lasts. Raises `LookupError` where there is none."""
    path = chromium()
    if path is None:
        raise LookupError("there is no Chromium here")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={home}", f"--window-size={width},{height}"]
        process = subprocess.Popen([path, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page(Path(home)), max_size=None) as connection:
                page = Page(connection)
                page.ask("Page.enable")
                yield page
        finally:
            process.terminate()
            process.wait(20)


def _page(home: Path) -> str:
    """The address at which the browser's page takes commands."""
    said, limit = home / "DevToolsActivePort", time.monotonic() + 60
    while not (said.exists() and said.read_text().strip()):
        if time.monotonic() > limit:
            raise TimeoutError("Chromium does not start")
        time.sleep(0.1)
    port = said.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
        return str(next(each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"))
