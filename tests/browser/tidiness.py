"""What a page of results must look like, measured in the page itself."""

from __future__ import annotations

import re

from tests.browser.lab import NotebookPage

_RAW = re.compile(r"<[\w.]+ object at 0x|<IPython\.|<Figure |\b[A-Z]\w+(Box|Progress|Text|View)\(|Widget\(")
LEAST_CONTRAST = 4.5  # of text, as WCAG 2.2 asks for (AA)

_OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll('.jp-InputArea, .jp-OutputArea-child, .jp-MarkdownOutput')]
    .map(e => [e.getBoundingClientRect(), e]).filter(([box]) => box.width && box.height);
  const found = [];
  boxes.forEach(([a, first], i) => boxes.slice(i + 1).forEach(([b, second]) => {
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    if (down > 2 && across > 2 && !first.contains(second))
      found.push(first.innerText.slice(0, 40) + ' | ' + second.innerText.slice(0, 40));
  }));
  return found;
}"""

_CUT_OFF = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
  .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60))"""

_DIM = """() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('.jp-OutputArea-output :is(th, td, code, pre)')]
    .filter(e => e.innerText.trim()).map(e => {
      const [a, b] = [luminance(channels(getComputedStyle(e).color)), luminance(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.innerText.slice(0, 40)];
    });
}"""


def faults_of(page: NotebookPage) -> list[str]:
    """Return what is not tidy: errors of the page, stderr, raw objects, overlaps, what is cut off, broken pictures."""
    found = [f"error in the page: {fault}" for fault in page.faults]
    shown = page.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
    found += [f"stderr: {text[:300]}" for text in shown.all_inner_texts()]
    found += [f"a raw object: {match[0]}" for match in _RAW.finditer(page.text())]
    found += [f"overlap: {names}" for names in page.page.evaluate(_OVERLAPS)]
    found += [f"wider than the page: {text}" for text in page.page.evaluate(_CUT_OFF)]
    images = page.page.locator(".jp-OutputArea-output img")
    found += ["a broken picture"] * images.evaluate_all(
        "all => all.filter(i => !(i.complete && i.naturalWidth)).length"
    )
    return found


def dim_texts(page: NotebookPage) -> list[str]:
    """Return texts of outputs that can hardly be read on their background."""
    measured = page.page.evaluate(_DIM)
    assert measured, "there are outputs to look at"
    return [f"{text!r} has a contrast of {contrast:.1f}" for contrast, text in measured if contrast < LEAST_CONTRAST]
