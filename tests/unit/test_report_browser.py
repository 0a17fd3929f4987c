# SPDX-License-Identifier: Apache-2.0
"""The page in a browser (Debian's Chromium), without a network: on a phone, and on a desk."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from carom.lab import report
from carom.lab import results as storage
from unit import fake_contests, fake_filters
from unit import fake_results as fake

WIDTHS = (360, 1200)
HEIGHT = 1600
_NARROWEST = 500  # no window is narrower: what is shown is a frame in one

WRAPPER = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0; background: #f0f }} iframe {{ border: 0; display: block }}</style>
<iframe src="{page}" style="width: {width}px; height: {height}px"></iframe>
<pre></pre>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument
  const outside = [...page.body.querySelectorAll("*")].filter(one =>
    one.getBoundingClientRect().right > {width} && !one.closest(".scroll > *"))
  const images = [...page.images]
  document.querySelector("pre").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    outside: outside.map(one => one.outerHTML.slice(0, 100)),
    images: images.length,
    broken: images.filter(one => !one.naturalWidth).length,
  }})
}}
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> list[str]:
    """How Chromium is run where it can reach nothing; skips with the reason where it is not."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    tried = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace: {tried.stderr.strip()}")
    return [*alone, program]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of runs of every kind, one with long names."""
    root = tmp_path_factory.mktemp("runs")
    long = fake.run("cache", fake.cache_cells(), repetitions=2)
    long.command = "carom " + "x" * 500
    long.settings = {"y" * 200: "z" * 200}
    runs = [
        storage.write(long, root),
        storage.write(fake.run("bounce", fake.bounce_cells((15.0, 60.0)), repetitions=2), root),
        storage.write(fake_contests.load(), root),
        storage.write(fake_filters.results(fake_filters.grid()), root),
    ]
    report.write(runs, root / "report.html")
    return root / "report.html"


def look(chromium: list[str], page: Path, width: int) -> tuple[dict[str, object], Path]:
    """What the browser found in the page at that width, and a picture of its beginning."""
    wrapper = page.with_name(f"at-{width}.html")
    wrapper.write_text(WRAPPER.format(page=page.name, width=width, height=HEIGHT))
    picture = page.with_name(f"at-{width}.png")
    arguments = [
        *chromium,
        "--headless",
        "--no-sandbox",  # it does not start as root with one
        "--disable-background-networking",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--allow-file-access-from-files",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--window-size={max(width, _NARROWEST)},{HEIGHT}",
        "--virtual-time-budget=10000",
    ]
    found = []
    for action in ("--dump-dom", f"--screenshot={picture}"):
        done = subprocess.run(
            [*arguments, action, wrapper.as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    said = re.search(r"<pre>(.+?)</pre>", found[0], re.DOTALL)
    assert said, found[0]
    return json.loads(html.unescape(said[1])), picture


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_is_not_blank(chromium: list[str], page: Path, width: int) -> None:
    found, picture = look(chromium, page, width)
    assert found["width"] == width, found["outside"]
    assert found["outside"] == []
    assert (found["images"], found["broken"]) == (8, 0)
    pixels = np.rint(255 * imread(picture)[:, :width, :3]).astype(int)
    assert pixels.shape[1] == width
    inked = (np.abs(pixels - pixels[0, 0]).max(axis=2) > 60).mean()
    assert 0.01 < inked < 0.7
    assert len(np.unique(pixels @ [1 << 16, 1 << 8, 1])) > 50


@pytest.mark.slow
def test_a_page_that_overflows_would_be_noticed(chromium: list[str], page: Path) -> None:
    wide = page.with_name("wide.html")
    wide.write_text(page.read_text().replace("<main>", "<main><p style='width: 700px'>wide</p>"))
    found, _ = look(chromium, wide, 360)
    assert found["width"] != 360 and found["outside"]
