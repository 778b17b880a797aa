"""The page of a report in a real browser, headless Chromium: what it draws, that its script sorts, and that nothing
else in it runs or is loaded. A start takes a second or two, so a test does much with each."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from report_cases import HOSTILE, encoder, hostile, layer, report

from qkernels.report_page import report_page
from qkernels.report_style import STYLE

image = pytest.importorskip("matplotlib.image")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.any_isa, pytest.mark.skipif(BROWSER is None, reason="needs Chromium")]
LIGHT, DARK = (dict(re.findall(r"--(\w+): #(\w{6});", part)) for part in STYLE.split("prefers-color-scheme: dark"))
POLICY = re.compile("<meta http-equiv=[^>]*>")


@pytest.fixture
def browse(tmp_path):
    """The function that opens a page; it gives what the options make Chromium print, and its messages."""

    def run(page, *options, width=1200, height=1600):
        path = tmp_path / "page.html"
        path.write_text(page, "utf-8")
        done = subprocess.run(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
             "--enable-logging=stderr", "--v=0", f"--window-size={width},{height}", *options, path.as_uri()],
            capture_output=True, encoding="utf-8", timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    return run


@pytest.fixture
def screenshot(browse, tmp_path):
    """The function that takes a picture of a page: an integer 0xRRGGBB for each pixel."""

    def take(page, width, height, dark=False):
        path = tmp_path / "page.png"
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        _, messages = browse(page, f"--screenshot={path}", scheme, width=width, height=height)
        assert messages == [] and path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        pixels = (image.imread(path)[..., :3] * 255).round().astype(int)
        return pixels @ [1 << 16, 1 << 8, 1]

    return take


def evaluated(browse, page, script, **window):
    """What a script finds in the page; the policy, which would not let it run, is taken away."""
    assert len(POLICY.findall(page)) == 1
    page = POLICY.sub("", page).replace("</body>", f"<script>document.title = JSON.stringify({script})</script></body>")
    dom, messages = browse(page, "--dump-dom", **window)
    assert messages == []
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))


def runs(row):
    """How many stretches of True there are."""
    return np.count_nonzero(np.diff(row.astype(int), prepend=0) == 1)


@pytest.mark.parametrize("width, height, dark", [(1200, 1600, False), (390, 2200, True)], ids=["desktop", "dark phone"])
def test_what_it_draws(screenshot, width, height, dark):
    picture = screenshot(report_page(encoder()), width, height, dark)
    color = {name: int(value, 16) for name, value in (DARK if dark else LIGHT).items()}
    assert picture.shape == (height, width) and picture[0, 0] == picture[-1, -1] == color["back"]
    assert 0.3 < np.mean(picture == color["back"]) < 0.95  # neither blank nor covered
    bars, other_bars, kept = (picture == color[name] for name in ("color0", "color1", "kept"))
    assert max(map(runs, bars)) == 35 and max(map(runs, other_bars)) == 1
    assert max(map(runs, bars | other_bars)) == 36
    # What was kept is as wide before and after, and beside the rest as its bytes say.
    rows = [row for row in kept.sum(axis=1) if row > width / 3]
    assert 40 <= len(rows) <= 44
    whole = 1184 - 48 if width > 1184 else width - 32  # without the margins
    np.testing.assert_allclose(rows, whole * 46_964_736 / (46_964_736 + 42_467_328), atol=2)
    assert np.count_nonzero(picture == color["warn"]) > 30  # the ring and the note of the lowest SQNR


def test_a_thousand_layers(screenshot):
    layers = [layer(f"block.{i}.weight", (4096, 4096), sqnr=20 + i * 7 % 11 / 5) for i in range(1000)]
    bars = screenshot(report_page(report(layers)), 1200, 1600) == int(LIGHT["color0"], 16)
    assert max(map(runs, bars)) == 143  # of 7 layers


def test_it_sorts(browse):
    figures = encoder()
    columns = {"name": 1, "bytes": 5, "sqnr": 6, None: 0}
    clicks = [column for column in columns.values() for _ in range(2)]
    found = evaluated(browse, report_page(figures), f"""{clicks}.map(column => {{
        document.querySelectorAll("th button")[column].click();
        return [...document.querySelectorAll("table.layers tbody tr")].map(row => Number(row.id.slice(6)) - 1);
    }})""")
    order = list(range(36))
    for key in columns:
        for reverse in (False, True):
            order.sort(key=lambda i: figures["layers"][i][key] if key else i, reverse=reverse)
            assert found.pop(0) == order, (key, reverse)


FITS = """(() => {
    const page = document.documentElement.innerHTML, frame = document.createElement("iframe");
    frame.frameBorder = 0;
    document.body.append(frame);
    const framed = frame.contentDocument;
    framed.write("<!DOCTYPE html>");
    framed.close();
    framed.documentElement.innerHTML = page;
    return [320, 390, 687, 690, 800, 975, 978, 1100, 1300].filter(width => {
        frame.width = width;
        return framed.documentElement.scrollWidth !== width;
    });
})()"""


def test_it_fits_windows_of_any_width(browse):
    """In a frame, as a window that is not drawn has a least width."""
    figures = hostile()
    figures["layers"].append(layer("decoder.layer.100.attention.self.query.weight", (131072, 65536), "long " * 30,
                                   10.25, -100.5, 1e6))
    assert evaluated(browse, report_page(figures), FITS) == []


def test_only_its_own_script_runs(browse):
    """A name that is not escaped would run and load nothing. Each refusal gives a message, so a page without messages
    has not tried to load anything."""
    dom, messages = browse(report_page(hostile()), "--dump-dom")
    assert messages == [] and dom.count('<button type="button">') == 8
    assert dom.count("<script") == 1 and dom.count("<h2") == 4 and "<img" not in dom
    assert all(html.escape(name, quote=False).replace(".", ".<wbr>") in dom for name in HOSTILE if name.isprintable())
    attacks = ["<script>document.title = 'run'</script>", "<svg onload=\"document.title = 'run'\"></svg>",
               "<img src='http://127.0.0.1:9/x'>", "<style>* { color: red }</style>"]
    dom, messages = browse(report_page(encoder()).replace("</body>", "".join(attacks) + "</body>"), "--dump-dom")
    assert "<title>out.safetensors" in dom and len(messages) == len(attacks)
    assert all("Content Security Policy" in message for message in messages)
