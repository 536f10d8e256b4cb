"""A page in headless Chromium: what it says, asks for and looks like, over the pipe of the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
WHY_NOT = "needs Debian's package chromium"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")


@dataclass
class Browser:
    """One tab."""

    writing: int  # file descriptors of the pipe
    reading: int
    session: str | None = None
    n_sent: int = 0
    rest: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)

    def send(self, method: str, **params: object) -> dict[str, Any]:
        """The answer to a command; what happened meanwhile is in `events`."""
        self.n_sent += 1
        message: dict[str, object] = {"id": self.n_sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.n_sent:
                assert "error" not in found, found
                answer: dict[str, Any] = found["result"]
                return answer
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            got = os.read(self.reading, 1 << 20)
            assert got, "Chromium ended"
            self.rest += got
        one, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def open(self, path: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Shows a page, `width` pixels wide, until it has drawn its figures, if it has any."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=path.absolute().as_uri())
        self.value(
            "new Promise(done => { const look = () => document.readyState === 'complete' && "
            "(!document.getElementById('figures') || document.documentElement.dataset.drawn) "
            "? setTimeout(done, 200) : setTimeout(look, 50); look(); })"
        )

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to in the page."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @property
    def complaints(self) -> list[str]:
        """Errors of scripts, and what the policy of the page refused."""
        said = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in said]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, but for what lies in the page itself."""
        asked = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        got = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(got["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium whose files lie in the folder."""
    (to_it, writing), (reading, from_it) = os.pipe(), os.pipe()
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'chromium'}", "about:blank"]
    # The protocol wants its pipe at 3 and 4, wherever ours are.
    shell = f'exec "$@" 3<&{to_it} 4>&{from_it}'
    with subprocess.Popen(
        ["bash", "-c", shell, "bash", *command],
        pass_fds=(to_it, from_it),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(to_it)
        os.close(from_it)
        try:
            one = Browser(writing, reading)
            tab = one.send("Target.createTarget", url="about:blank")["targetId"]
            one.session = one.send("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            yield one
        finally:
            process.kill()
            os.close(writing)
            os.close(reading)
