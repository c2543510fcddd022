"""google.colab.data_table: data frames as a scrolling table, in a plain IPython."""

from __future__ import annotations

import pytest

from colabkit.colab.data_table import DataTable
from tests.colab.conftest import in_process

pandas = pytest.importorskip("pandas")


def test_a_frame_is_shown_as_a_table_with_its_index(capsys):
    frame = pandas.DataFrame({"a": [1, 2], "b<": ["x", "<script>"]}, index=["r", "s"])
    text = DataTable(frame)._repr_html_()
    assert "<th>r</th>" in text and "&lt;script&gt;" in text and "<script>" not in text and "2 rows" in text
    assert "<th>r</th>" not in DataTable(frame, include_index=False)._repr_html_()
    assert "min-width: 9&quot;px" in DataTable(frame, min_width='9"px')._repr_html_()
    assert capsys.readouterr().out == "" and repr(DataTable(frame)) == repr(frame)


def test_large_frames_are_cut_and_it_is_said(capsys):
    frame = pandas.DataFrame({f"c{n}": range(30) for n in range(5)})
    text = DataTable(frame, max_rows=10, max_columns=2)._repr_html_()
    assert "c1" in text and "c2" not in text and "10 of 30 rows" in text
    assert capsys.readouterr().out.splitlines() == [
        "Warning: Total number of columns (5) exceeds max_columns (2). limiting to first (2) columns.",
        "Warning: total number of rows (30) exceeds max_rows (10). Limiting to first (10) rows.",
    ]
    many = pandas.DataFrame({"a": range(5000)})
    assert "1000 of 5000 rows" in DataTable(many)._repr_html_()


def test_what_pandas_should_show_itself(capsys, monkeypatch):
    frame = pandas.DataFrame({"a": [1, 2, 3]})
    assert DataTable.formatter(frame, include_index=False).count("<td>") == 3
    monkeypatch.setattr(DataTable, "max_rows", 2)
    assert DataTable.formatter(frame) is None and "Falling back to pandas display" in capsys.readouterr().out
    nested = pandas.DataFrame([[1]], columns=pandas.MultiIndex.from_tuples([("a", "b")]))
    assert DataTable.formatter(nested) is None and DataTable.formatter(nested.T) is None
    assert "0 rows" in DataTable.formatter(pandas.DataFrame())


def test_enabled_and_disabled_in_ipython(tmp_path):
    code = (
        "from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell.instance()\n"
        "import pandas; frame = pandas.DataFrame({'a': [1]})\n"
        "html = lambda: shell.display_formatter.format(frame)[0]['text/html']\n"
        "plain = html(); from colabkit.colab import data_table as t\n"
        "t.disable_dataframe_formatter(); assert html() == plain\n"
        "t.enable_dataframe_formatter(); t.enable_dataframe_formatter(); assert '1 rows' in html(), html()\n"
        "t.disable_dataframe_formatter(); assert html() == plain\n"
        "shell.run_line_magic('load_ext', 'colabkit.colab.data_table'); assert '1 rows' in html()\n"
        "shell.run_line_magic('unload_ext', 'colabkit.colab.data_table'); assert html() == plain\n"
        "t.display_dataframe(frame)"
    )
    done = in_process(code, tmp_path)
    assert done.returncode == 0, done.stderr
