"""The desk in a process of its own and a Chromium before it.

`python -m tests.desk_browser` makes docs/review.png.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NARROW, WIDE = {"width": 400, "height": 800}, {"width": 1200, "height": 800}


class LiveDesk:
    """`hangtag review serve` over a folder, on a port that stays the same after a restart."""

    def __init__(self, out: Path, *options: str) -> None:
        self._out, self._options, self._port = out, options, 0
        self.start()

    def start(self) -> None:
        command = ["review", "serve", str(self._out), "--port", str(self._port), *self._options]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hangtag.cli", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"ready at (http://[\d.]+:(\d+))/", line)
        if found is None:
            self.process.kill()
            raise AssertionError(line + self.process.communicate()[1])
        self.address, self._port = found[1], int(found[2])

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def close(self) -> None:
        """End it as Ctrl-C would and check that it ends well."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, errors
        assert "Traceback" not in errors


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a headless Chromium of Playwright's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def login(browser: Any, desk: LiveDesk, name: str, viewport: Any = WIDE) -> Any:
    """Return a page of a reviewer who is logged in; it collects requests to other hosts and errors of scripts."""
    context = browser.new_context(viewport=viewport, base_url=desk.address)
    page = context.new_page()
    page.foreign, page.errors = [], []
    page.on("request", lambda sent: sent.url.startswith(desk.address) or page.foreign.append(sent.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
    page.goto("/login")
    page.fill("input[name=name]", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#decide")
    return page


def main() -> int:
    """Draw the picture of the sample's labels under review, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        sample = ROOT / "src" / "hangtag" / "sample"
        out = Path(folder)
        shutil.copy(sample / "vocabulary.json", out)
        rows = []
        for line in (sample / "validation.jsonl").read_text(encoding="utf-8").splitlines():
            product = json.loads(line)
            number = len(product["tags"])
            confidences = [round(0.95 - 0.6 * place / number, 2) for place in range(number)]
            fields = {name: product.get(name) for name in ("id", "title", "description", "attributes")}
            rows.append(fields | {"tags": product["tags"], "confidences": confidences, "status": "ok"})
        (out / "review.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        desk = LiveDesk(out, "--data", str(sample))
        page = login(browser, desk, "Ada")
        page.hover(".choice >> nth=1")
        page.screenshot(path=str(ROOT / "docs" / "review.png"))
        desk.close()
    print(ROOT / "docs" / "review.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
