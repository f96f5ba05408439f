"""The page as one uses it: what happens while it is open, the keyboard, a phone, thousands of areas, and pictures of it.

Usage: page.py FOLDER ADDRESS TEST [ARGUMENT...]. Prints what is wrong; exit 0 if nothing is.
"""

import os
import subprocess
import sys
import time

from browser import DESK, PHONE, Browser, Failed

VIEWS = ["", "accounts", "contexts", "ioas", "walk", "host", "events", "operations"]


def require(holds, what):
    if not holds:
        raise Failed(what)


def live(browser, address, holder, socket):
    """A client that comes and goes while the page is open is shown, and the page is not loaded again for it."""
    browser.open(f"{address}/#/events")
    browser.await_text("live")
    browser.run("window.same = true")
    browser.run("document.querySelectorAll('#view table').forEach((table) => table.remove())")
    client = subprocess.Popen([holder, socket, "1"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    browser.await_that("document.querySelector('#view tbody tr').innerText.includes('opened')")
    client.stdin.close()
    client.wait()
    browser.await_that("document.querySelector('#view tbody tr').innerText.includes('closed')")
    require(browser.run("window.same"), "the page was loaded again")


def focus(browser):
    return browser.run("(document.activeElement.innerText || document.activeElement.id || document.activeElement.tagName).trim()")


def keyboard(browser, address, space):
    """Every view by Tab and Enter, whose focus then is in it; and the map without a mouse."""
    browser.open(address)
    browser.press("Tab")
    require(focus(browser) == "to the content", f"first is {focus(browser)}")
    browser.press("Tab")
    for view in VIEWS:
        browser.press("Tab")
        there = browser.run("document.activeElement.getAttribute('href')")
        require(there == f"#/{view}", f"{there} is where {view} should be")
    browser.press("Enter")
    browser.await_that("location.hash === '#/operations' && document.activeElement.id === 'view'")
    browser.open(f"{address}/#/ioas/{space}")
    browser.await_text("areas in view")
    for _ in range(60):
        browser.press("Tab")
        if browser.run("document.activeElement.matches('canvas.map')"):
            break
    else:
        raise Failed("no Tab leads to the map")
    browser.press("n")
    browser.await_text("The way to 0x200000")
    browser.press("n")
    browser.press("n")
    browser.await_text("The way to 0x204000")
    before = browser.run("document.querySelector('.map-frame p').innerText")
    browser.press("Home")
    browser.await_that(f"document.querySelector('.map-frame p').innerText !== {before!r}")


def narrow(browser, address, space):
    """On a phone nothing but tables and the row of views is moved sideways."""
    browser.screen(PHONE)
    wide = []
    for view in [*VIEWS, "contexts/1", f"ioas/{space}?at=0x208000", "ioas/1?length=2MiB", "walk?domain=1&iova=0x200000"]:
        browser.open(f"{address}/#/{view}")
        browser.await_that("document.querySelector('#view').innerText.length > 20")
        browser.settle()
        width = browser.run("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        if width > PHONE["width"]:
            beyond = browser.run(f"""[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll *, nav *')
                && one.getBoundingClientRect().right > {PHONE["width"]}).map((one) => one.outerHTML.slice(0, 80)).slice(0, 5).join("; ")""")
            wide.append(f"{view or 'overview'} is {width} wide: {beyond}")
    require(not wide, "\n".join(wide))


def many(browser, address, space):
    """12,500 areas are there, can be searched and stepped through; tells how long each took."""
    since = time.monotonic()
    browser.open(f"{address}/#/ioas/{space}")
    browser.await_text("12,500 areas")
    browser.await_text("areas in view")
    print(f"12,500 areas shown after {time.monotonic() - since:.2f} s")
    browser.run("document.querySelector('canvas.map').focus()")
    slowest = 0
    for key in ["n", "n", "+", "+", "ArrowRight", "Home"]:
        since = time.monotonic()
        browser.press(key)
        browser.run("new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))")
        slowest = max(slowest, time.monotonic() - since)
    print(f"a key is followed at the latest after {slowest * 1000:.0f} ms")
    since = time.monotonic()
    browser.run("""(() => { const input = document.querySelector('#address'); input.value = '0x4d8a000';
        input.form.requestSubmit(); })()""")
    browser.await_text("The way to 0x4d8a000")
    print(f"an address is found and walked after {time.monotonic() - since:.2f} s")


def shots(browser, address, space, to):
    """Pictures: every view by day and on a phone, what is drawn also in the dark."""
    os.makedirs(to, exist_ok=True)
    views = {view or "overview": view for view in VIEWS}
    views |= {"map": f"ioas/{space}?at=0x208000", "map-whole": f"ioas/{space}", "explain": "ioas/1?length=4096&iova=0x200000",
              "walk": "walk?domain=1&iova=0x200000", "context": "contexts/1"}
    drawn = {name: views[name] for name in ["overview", "accounts", "map", "map-whole", "host"]}
    for kind, size, dark, shown in [("", DESK, False, views), ("-dark", DESK, True, drawn), ("-phone", PHONE, False, views)]:
        browser.screen(size, dark)
        for name, view in shown.items():
            browser.open(f"{address}/#/{view}")
            browser.settle()
            browser.shot(f"{to}/{name}{kind}.png", whole=True)


def found(browser, address, refusal, to):
    """Why a map was refused is among the events, and below the address space; who used how much is with the accounts."""
    os.makedirs(to, exist_ok=True)
    for name, view, text in [("events", "events", refusal), ("explain", "ioas/1?length=1MiB", f"It would be refused: {refusal}"),
                             ("accounts", "accounts", "4 MiB used, soft 2 MiB, hard 4 MiB")]:
        browser.open(f"{address}/#/{view}")
        browser.await_text(text)
        browser.shot(f"{to}/story-{name}.png", whole=True)


TESTS = {test.__name__: test for test in [live, keyboard, narrow, many, found, shots]}


def main(folder, address, test, *arguments):
    browser = Browser(folder)
    try:
        browser.screen(DESK)
        TESTS[test](browser, address, *arguments)
        require(not browser.wrong, f"in the console: {browser.wrong}")
    except Failed as failure:
        print(failure)
        return 1
    finally:
        browser.close()
    return 0


sys.exit(main(*sys.argv[1:]))
