"""The page of a report: figures, names and rows as they should be, whatever the checkpoint; not how it looks."""

import json
import os
import re

import pytest
from report_cases import HOSTILE, INT4, INT8, Page, encoder, hostile, kept, layer, report

from qkernels import report_page as pages
from qkernels._files import FileError
from qkernels.report_chart import COLUMNS, ticks
from qkernels.report_text import duration, escaped, ratio, size

pytestmark = pytest.mark.any_isa


def parsed(figures):
    text = pages.report_page(json.loads(json.dumps(figures)))
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.elements:
        assert not {"src", "style", "srcset", "data", "action"} & set(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if "href" in attributes:
            assert attributes["href"][0] == "#" and attributes["href"][1:] in ids, attributes
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"img", "link", "iframe", "object", "embed", "base", "form", "use", "video", "audio"})
    assert "url(" not in text and "@import" not in text
    assert len(page.all("script")) == len(page.all("style")) == 1
    return page


def test_figures_of_an_encoder():
    figures = encoder()
    page = parsed(figures)
    text = " ".join(page.text.split())
    weights = 6 * 384 * 384 * 12
    stored = sum(layer["bytes"] for layer in figures["layers"])
    assert f"In 36 quantized layers{4 * weights / 1e6:.1f} MB → {stored / 1e6:.2f} MB" in text
    assert f"{4 * weights / stored:.2f}× smaller" in text
    assert f"Bits per quantized weight{8 * stored / weights:.2f}{weights:,} weights" in text
    assert "Lowest SQNR17.3 dBmedian 20.3 dB; encoder.layer.5.output.dense.weight" in text
    assert "Kept as they were37 tensors47.0 MB" in text
    assert "Time12.3 s2 processes" in text
    assert "qkernels 0.1.0 · ISA avx2 · layout of the panels nr16-kr2" in text
    rows = [[cell.strip() for cell in row] for row in page.rows]
    assert rows[1:5] == [
        [INT4, "35", "40.1 MB", "6.27 MB", "5.00", "17.3 dB"],
        [INT8, "1", "2.36 MB", "596 kB", "8.08", "42.0 dB"],
        ["kept as they were", "37", "47.0 MB", "47.0 MB", "", ""],
        ["all tensors", "73", "89.4 MB", "53.8 MB", "", ""],
    ]


def test_a_row_for_every_tensor():
    figures = encoder()
    rows = parsed(figures).rows
    of_layers = [row for row in rows if len(row) == 8 and row[0] != "#"]
    assert [row[0] for row in of_layers] == [str(n) for n in range(1, 37)]
    assert of_layers[0] == ["1", "encoder.layer.0.attention.self.query.weight", f" {INT4}", "384 × 384 F32", "5.00",
                            "92.2 kB", "20.0 dB", "0.21 s"]
    assert [row[0] for row in of_layers if "lowest SQNR" in row[1]] == ["36"]
    of_kept = [row for row in rows if len(row) == 3 and row[0] != "name"]
    assert [row[0] for row in of_kept] == [tensor["name"] for tensor in figures["kept"]]
    assert ["an embedding 1 tensor, 46.9 MB"] in rows and ["not a matrix 36 tensors, 82.9 kB"] in rows


def test_reasons_with_the_most_bytes_come_first():
    rows = parsed(report([], [kept("a", (1,), "small"), kept("b", (9,), "large"), kept("c", (), "small")])).rows
    assert [row[0] for row in rows[-5:]] == ["large 1 tensor, 36 B", "b", "small 2 tensors, 8 B", "a", "c"]
    assert rows[-1] == ["c", "scalar F32", "4 B"]


def test_names_are_shown_and_do_nothing():
    page = parsed(hostile())
    cells = {cell for row in page.rows for cell in row}
    for name in HOSTILE:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        assert shown in cells or f"{shown} lowest SQNR" in cells, shown
    assert {r"\u202egpj.exe\x00", r"\udc80\ud83d lone \udfff", r"x\ny\tz\r", "שלום.עולם"} < cells
    assert escaped("<&>\"'") == "&lt;&amp;&gt;&quot;&#x27;"


@pytest.mark.parametrize("figures, shown", [
    (report([]), ["0 B → 0 B", "the same size", "No layer was quantized", "No tensor was kept"]),
    (report([], [kept("a", (0,), "empty")], processes=None), ["1 tensor", "0 F32", "workers of an executor"]),
    (report([layer("zero", (0, 384), bits=0.0, sqnr=None)], processes=1, seconds=0),
     ["0.00 s", "1 process", "0 × 384"]),
    (report([layer("exact", (4, 4), sqnr=None)]), ["1 layer without SQNR: not measured, exact, or all zero"]),
    (report([layer("a", (4, 4), sqnr=-3.25), layer("b", (4, 4), sqnr=250.0), layer("c", (4, 4), sqnr=None)]),
     ["lowest: -3.2 dB", "-100 dB", "300 dB", "1 layer without"]),
    (report([dict(layer("half", (64, 64)), dtype="BF16"), layer("whole", (64, 64))]), ["24.6 kB → 5.12 kB", "BF16"]),
    (report([layer("huge", (2**40, 2**21))], [kept("larger", (2**62,), "too large")], seconds=10**7),
     ["9.22 EB → 1.44 EB", "27.7 EB → 19.9 EB", "2,305,843,009,213,693,952 weights", "2,777 h 46 min"]),
], ids=["nothing", "zero bytes", "no weights", "no SQNR", "far apart", "half", "huge"])
def test_extremes(figures, shown):
    page = parsed(figures)
    assert len([row for row in page.rows if len(row) == 8]) == len(figures["layers"]) + bool(figures["layers"])
    assert [text for text in shown if text not in page.text] == []
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    for _, attributes in page.elements:
        for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            assert re.fullmatch(r"-?\d+(\.\d+)?%?", attributes.get(key, "0")), attributes


@pytest.mark.parametrize("n", [COLUMNS, COLUMNS + 1, 1000])
def test_columns_of_the_chart(n):
    """Every layer is in one; each links to the layer with the lowest SQNR in it, and its marks are on the chart."""
    figures = report(layer(f"l{i}", (8, 8 + i % 5), (INT4, INT8)[i % 3 == 0], sqnr=20 + i * 7 % 11) for i in range(n))
    page = parsed(figures)
    links = [int(a["href"].removeprefix("#layer-")) for a in page.all("a") if a.get("tabindex") == "-1"]
    step = -(-n // COLUMNS)
    want = [min(range(i, min(i + step, n)), key=lambda i: figures["layers"][i]["sqnr"]) + 1 for i in range(0, n, step)]
    assert links == want and len(links) <= COLUMNS
    ranges = [a for a in page.all("line") if a["class"].startswith("range")]
    assert all(24 < float(a[y]) < 206 for a in ranges for y in ("y1", "y2"))  # the panel, and half a dot more
    assert [float(a["x1"][:-1]) for a in ranges] == sorted(float(a["x1"][:-1]) for a in ranges)
    assert 0 < float(ranges[0]["x1"][:-1]) < 1 and 99 < float(ranges[-1]["x1"][:-1]) < 100


def test_bars_are_as_high_as_the_bytes():
    page = parsed(report([layer("a", (64, 64)), layer("b", (64, 192)), layer("c", (64, 64), INT8, 8.5)]))
    one, three, more = (float(a["height"]) for a in page.all("rect")
                        if a["class"].startswith("color") and "." in a.get("height", ""))
    assert three == pytest.approx(3 * one, abs=0.2) and more == pytest.approx(1.7 * one, abs=0.2)


def test_formats_beyond_the_colors_share_one():
    page = parsed(report(layer(f"l{i}", (8, 8 + i), f"format {i}") for i in range(9)))
    classes = [a["class"] for a in page.all("line") if a["class"].startswith("range")]
    assert classes == ["range others"] * 3 + [f"range color{i}" for i in (5, 4, 3, 2, 1, 0)]


def test_numbers():
    assert [size(n) for n in (0, 999, 1000, 9994, 9996, 999_499, 999_500, 10**21)] == [
        "0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "999 kB", "1.00 MB", "1,000 EB"]
    assert [duration(s) for s in (0, 9.99, 59.94, 59.96, 3599.6, 360_000)] == [
        "0.00 s", "9.99 s", "59.9 s", "1 min 00 s", "1 h 00 min", "100 h 00 min"]
    assert [ratio(*pair) for pair in ((0, 3), (3, 0), (3, 3))] == ["", "", "the same size"]
    assert ratio(1, 3000) == "3,000.00× larger"


def test_ticks_are_few_and_cover():
    for low, high in ((0, 4), (0, 8), (-250.5, 250), (19.5, 20.5), (0, 3e18), (0.1, 99.9)):
        for most in (4, 5, 8):
            found = ticks(low, high, most)
            assert 2 <= len(found) <= most + 1 and found[0] <= low and found[-1] >= high
            assert found[1] > low and found[-2] < high


def test_another_version():
    with pytest.raises(ValueError, match="^report: got version 2, takes 1$"):
        pages.report_page(report([], version=2))


def test_the_file_is_complete_or_untouched(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    pages.write_page(path, hostile())
    written = path.read_bytes()
    assert written.decode("utf-8") == pages.report_page(hostile())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="report.html: No space left"):
        pages.write_page(path, encoder())
    with pytest.raises(ValueError):
        pages.write_page(path, report([], version=2))
    assert path.read_bytes() == written and os.listdir(tmp_path) == ["report.html"]
