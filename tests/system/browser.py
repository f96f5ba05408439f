"""A page in a real browser that is neither in a hurry nor made to stand still: Chromium over its debugging pipe.

Nothing but Python's own library is needed. Time is real there, so that streams run (with `--virtual-time-budget` they
stop it).
"""

import base64
import fcntl
import json
import os
import subprocess
import tempfile

# The keys that are used, with the codes that make a browser act on them.
KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "Home": 36, "n": 78, "+": 187}

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 900}


class Failed(Exception):
    """What the page is not, for people."""


class Browser:
    """One browser with one page. `wrong` collects what the page throws and what is wrong in its console."""

    def __init__(self, folder):
        self.wrong = []
        self.asked = 0
        # The browser reads questions at its descriptor 3 and writes answers at 4.
        (read, self.to), (self.origin, write) = os.pipe(), os.pipe()
        # Out of the way of those two.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
        # Processes of its own may write there for a moment after it has ended; whose folder it is removes the rest.
        self.profile = tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", "chromium", "--headless",
             "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe"],
            pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (read, write, *ends):
            os.close(end)
        self.rest = b""
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log"]:
            self.ask(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.profile.cleanup()

    def ask(self, method, **params):
        """Asks the browser and returns its answer; what happens meanwhile is looked at on the way."""
        self.asked += 1
        question = {"id": self.asked, "method": method, "params": params}
        if self.session:
            question["sessionId"] = self.session
        os.write(self.to, json.dumps(question).encode() + b"\0")
        while True:
            said = self.next()
            if said.get("id") == self.asked:
                if "error" in said:
                    raise Failed(f"{method}: {said['error']['message']}")
                return said["result"]
            self.happened(said)

    def next(self):
        while b"\0" not in self.rest:
            part = os.read(self.origin, 1 << 16)
            if not part:
                raise Failed("the browser has ended")
            self.rest += part
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def happened(self, said):
        params = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.wrong.append(details.get("exception", {}).get("description", details["text"]))
        # The page asks for what may not be there; the answer 404 is no fault of it.
        elif said.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error" and params["entry"]["source"] != "network":
            self.wrong.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def run(self, script):
        """What a script gives, its promise awaited."""
        result = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise Failed(result["exceptionDetails"].get("exception", {}).get("description", script))
        return result["result"].get("value")

    def await_that(self, condition, seconds=20):
        """Waits, without looking again and again, until a condition on the document holds."""
        held = self.run(f"""new Promise((resolve) => {{
            const holds = () => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }};
            const look = () => {{ if (holds()) {{ seen.disconnect(); resolve(true); }} }};
            const seen = new MutationObserver(look);
            seen.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
            setTimeout(() => {{ seen.disconnect(); resolve(holds()); }}, {seconds * 1000});
            look();
        }})""")
        if not held:
            raise Failed(f"not within {seconds} s: {condition}; the page says: {self.text()}")

    def settle(self):
        """What was asked for is there, and painted: nothing is loaded for half a second."""
        self.run("""new Promise((settled) => {
            let still = setTimeout(settled, 500);
            const seen = new PerformanceObserver(() => { clearTimeout(still); still = setTimeout(settled, 500); });
            seen.observe({ type: "resource" });
            setTimeout(settled, 4000);
        })""")

    def text(self):
        return self.run("document.body.innerText")

    def await_text(self, text, seconds=20):
        self.await_that(f"document.body.innerText.includes({json.dumps(text)})", seconds)

    def screen(self, size, dark=False):
        self.ask("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=size is PHONE)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)

    def open(self, address):
        """Loads a page anew, also one of another fragment only."""
        self.ask("Page.navigate", url="about:blank")
        self.await_that("location.href === 'about:blank'")
        self.ask("Page.navigate", url=address)
        self.await_that("document.readyState === 'complete' && document.querySelector('#view > *')")

    def press(self, key, shift=False):
        stroke = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        text = {"Enter": "\r", "n": "n", "+": "+"}.get(key)
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **({"text": text} if text else {}), **stroke)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **stroke)

    def shot(self, path, whole=False):
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))
