"""A small WebDriver client: what the tests of the app need of Chromium, spoken to chromedriver over HTTP."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # how the WebDriver protocol marks a reference to an element


class Browser:
    """A headless Chromium that reaches no address but this machine's own. A context manager."""

    def __init__(self, downloads):
        self._process = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self._process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self._base = f"http://127.0.0.1:{found[1]}"
                break
        options = {
            "binary": CHROMIUM,
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
            "prefs": {
                "download.default_directory": str(downloads),
                "profile.default_content_setting_values.automatic_downloads": 1,  # several, without asking
            },
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        asked = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        self._session = ""
        try:
            made = self._call("POST", "session", {"capabilities": {"alwaysMatch": asked}})
        except BaseException:
            self._process.kill()
            raise
        self._session = f"session/{made['sessionId']}/"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", self._session.rstrip("/"), at="")
        finally:
            self._process.kill()
            self._process.wait()

    def _call(self, method, path, body=None, at=None):
        address = f"{self._base}/{self._session if at is None else at}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error

    def open(self, address):
        self._call("POST", "url", {"url": address})

    def run(self, script, *arguments):
        """The value of a JavaScript function body."""
        return self._call("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition, seconds=60.0):
        """Until the JavaScript expression is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"waited {seconds:g} s for {condition}"
            time.sleep(0.1)
        return value

    def click(self, selector):
        self.wait(f"document.querySelector({selector!r})?.offsetParent")
        self.run("document.querySelector(arguments[0]).click()", selector)

    def type(self, selector, *keys):
        """Types into an element; the path of a file into a file input."""
        found = self._call("POST", "element", {"using": "css selector", "value": selector})[ELEMENT]
        self._call("POST", f"element/{found}/value", {"text": "".join(keys)})

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText || ''", selector)

    def tell(self, command, **parameters):
        """A command of Chromium's DevTools."""
        return self._call("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height, mobile=False):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self._call("GET", "screenshot")))

    def requests(self):
        """Every address that the page asked for since the last call."""
        entries = (json.loads(entry["message"])["message"] for entry in self._log())
        return [
            entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        ]

    def _log(self):
        return self._call("POST", "se/log", {"type": "performance"})
