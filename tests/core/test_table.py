"""Tables for people, and pictures for reports, notebooks and docs: one look, the same figure the same bytes."""

from __future__ import annotations

import math
import re

import numpy
from IPython.core.formatters import DisplayFormatter

from colabkit.core.table import Table


def test_a_table_is_aligned_and_escaped():
    table = Table(
        ["metric", "v"], [["der", 0.123456], ["<b>", None], ["nan", math.nan], ["whole", 16000]], title="T & t"
    )
    assert str(table).splitlines() == [
        "T & t",
        "metric       v",
        "------  ------",
        "der     0.1235",
        "<b>       None",
        "nan        nan",
        "whole    16000",
    ]
    assert repr(table) == str(table)
    html = table._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and "T &amp; t" in html and html.count("<tr>") == 5
    assert str(Table(["a", "b"], [])).splitlines() == ["a  b", "-  -"]


def test_only_columns_of_numbers_stand_right():
    table = Table(["n", "mixed", "flag"], [[numpy.float32(1.5), 1, True], [10, "x", False]])
    assert str(table).splitlines() == ["  n  mixed  flag", "---  -----  -----", "1.5  1      True", " 10  x      False"]
    styles = re.findall("text-align:(left|right)", table._repr_html_())
    assert styles == ["right", "left", "left"] * 3


def test_long_cells_fold_between_words_and_paths_stay_whole():
    path, words = "/content/" + "folder/" * 20, "word " * 40
    lines = str(Table(["what", "why"], [["a", words], ["b", path], ["c", "one\ntwo"], ["", ""]])).splitlines()
    assert [line[:1] for line in lines] == ["w", "-", "a", " ", " ", "b", "c", " "]
    assert max(len(line) for line in lines[2:5]) <= 6 + 80 and lines[5] == f"b     {path}" and lines[7] == "      two"
    html = Table(["what"], [[path], ["one\ntwo"]])._repr_html_()
    assert "overflow-wrap:break-word" in html and "max-width" in html and "white-space:pre-line" in html


def test_a_notebook_gets_a_table_as_text_and_html_without_colours():
    bundle, _ = DisplayFormatter().format(Table(["metric", "value"], [["der", 0.1]]))
    assert set(bundle) == {"text/plain", "text/html"} and bundle["text/plain"].startswith("metric  value")
    assert not re.search("color|background|#[0-9a-f]{3}", bundle["text/html"]), "a dark page would not go with it"
