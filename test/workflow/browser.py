"""Drive a headless Chromium over its debugging pipe: no driver, no package, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60  # seconds
# Chromium reads from descriptor 3 and writes to 4: put the pipes there, then become it.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Find a browser of the Chromium family."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """A browser with one page, and what went wrong on it or left it."""

    def __init__(self, profile: Path, *options: str, size: tuple[int, int] = (1440, 900)) -> None:
        ours_out, theirs_in = os.pipe()[::-1]
        ours_in, theirs_out = os.pipe()
        command = [
            find_browser(),
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",  # tests run as root, and the page is our own
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            *options,
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", START, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.out, self.into = ours_out, ours_in
        self.rest = b""
        self.number = 0
        self.session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        try:
            self._new_page(*size)
        except BaseException:
            self.close()
            raise

    def _new_page(self, width: int, height: int) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.out)
        os.close(self.into)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            if not select.select([self.into], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            found = os.read(self.into, 1 << 20)
            if not found:
                raise RuntimeError("the browser has ended")
            self.rest += found
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what the page complains of and asks for."""
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", details).get("description", "?"))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(str([item.get("value") for item in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def js(self, code: str) -> Any:
        """Return the value of an expression on the page."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{code}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def wait(self, code: str) -> Any:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if value := self.js(code):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"never true: {code}; problems: {self.problems}")

    def wait_for(self, file: Path) -> None:
        """Wait until a file is there."""
        until = time.monotonic() + PATIENCE
        while not file.is_file():
            if time.monotonic() > until:
                raise TimeoutError(f"{file} does not come")
            time.sleep(0.02)

    def open(self, page: Path, ready: str = "document.documentElement?.dataset.ready") -> float:
        """Open a file; return the seconds until it is ready and painted."""
        self.problems, self.requests = [], []
        start = time.monotonic()
        self.call("Page.navigate", url=page.resolve().as_uri())
        uri = json.dumps(page.resolve().as_uri())
        self.wait(f"location.href === {uri} && {ready}")
        self.painted()
        return time.monotonic() - start

    def painted(self) -> None:
        """Wait for the next picture."""
        self.js(
            "new Promise((done) => requestAnimationFrame("
            "() => requestAnimationFrame(() => done(1))))"
        )

    def click(self, selector: str) -> None:
        """Click on the middle of an element, with the mouse."""
        found = json.dumps(selector)
        x, y = self.js(
            f"(() => {{ const e = document.querySelector({found}); e.scrollIntoView("
            "{block: 'nearest'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.click_at(x, y)

    def click_at(self, x: float, y: float) -> None:
        """Click on a place, with the mouse."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)
        self.painted()

    def key(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.painted()

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)
        self.painted()

    def screenshot(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
