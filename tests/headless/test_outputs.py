"""Outputs stay small and in order, and lose their secrets wherever these stand."""

from __future__ import annotations

from nbformat import from_dict

from colabkit.headless.outputs import MOST_CHARACTERS, settle_stream, shortened, without_secrets
from colabkit.headless.redaction import REDACTED

SECRET = "hunter2hunter2"


def stream(name: str, text: str):
    return from_dict({"output_type": "stream", "name": name, "text": text})


def display(text: str):
    return from_dict({"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}})


def settled(*outputs):
    found = []
    for output in outputs:
        found.append(output)
        if output.output_type == "stream":
            settle_stream(found)
    return [(o.get("name", "shown"), o.get("text") or o.data["text/plain"]) for o in found]


def test_streams_are_joined():
    assert settled(
        stream("stdout", "a"),
        stream("stdout", "b\n"),
        stream("stderr", "x"),
        stream("stdout", "c"),
        stream("stderr", "y"),
    ) == [("stdout", "ab\nc"), ("stderr", "xy")]
    assert settled(stream("stdout", "a"), display("D"), stream("stdout", "b")) == [
        ("stdout", "a"),
        ("shown", "D"),
        ("stdout", "b"),
    ]


def test_overwritten_lines_are_dropped():
    assert settled(
        stream("stdout", "old\rnew\n"), stream("stdout", "10%"), stream("stdout", "\r20%"), stream("stdout", "\r30%\n")
    ) == [("stdout", "new\n30%\n")]
    assert settled(stream("stdout", "dos\r\nlines\r\n")) == [("stdout", "dos\r\nlines\r\n")]
    assert settled(stream("stdout", "half\r"), stream("stdout", "\n")) == [("stdout", "half\r\n")]


def test_endless_output_keeps_its_beginning_and_its_end():
    outputs = []
    for number in range(15_000):
        outputs.append(stream("stdout", f"line {number} of a very long output that nobody will ever read\n"))
        settle_stream(outputs)
    text = outputs[0].text
    assert len(outputs) == 1 and len(text) <= MOST_CHARACTERS
    assert text.startswith("line 0 of") and text.endswith(
        "line 14999 of a very long output that nobody will ever read\n"
    )
    assert text.count("left out here") == 1
    assert all(line.startswith(("line ", "[...")) for line in text.splitlines()), "cut at the ends of lines"
    assert len(shortened("x" * 5_000_000)) <= MOST_CHARACTERS, "one line without an end"


def test_secrets_across_outputs_of_one_stream():
    cell = {
        "cell_type": "code",
        "source": "print()",
        "metadata": {"tags": ["a"]},
        "execution_count": 1,
        "outputs": [
            stream("stdout", "a hunter2"),
            stream("stderr", "hunter2"),
            display("between"),
            stream("stdout", "hunter2 b"),
            stream("stderr", "!"),
            stream("stdout", " hunter2hun"),
        ],
    }
    clean = without_secrets(cell, (SECRET,))
    assert [o.get("text") for o in clean["outputs"]] == [f"a {REDACTED}", "hunter2", None, " b", "!", f" {REDACTED}"]
    assert cell["outputs"][0]["text"] == "a hunter2", "the original is left alone"


def test_secrets_in_every_kind_of_output():
    image = "aGk=" * 100
    cell = {
        "cell_type": "code",
        "source": f"token = '{SECRET}'",
        "metadata": {"papermill": {"x": SECRET}},
        "outputs": [
            from_dict(
                {
                    "output_type": "display_data",
                    "metadata": {"k": SECRET},
                    "data": {
                        "text/plain": SECRET,
                        "text/html": f"<b>{SECRET}</b>",
                        "application/json": {"a": [SECRET]},
                        "image/png": image,
                    },
                }
            ),
            from_dict(
                {
                    "output_type": "error",
                    "ename": "E",
                    "evalue": SECRET,
                    "traceback": ["\x1b[31mhunter2\x1b[0mhunter2", "b"],
                }
            ),
        ],
    }
    clean = without_secrets(cell, (SECRET,))
    assert "hunter2" not in str(clean) and str(clean).count(REDACTED) == 8
    assert clean["outputs"][0]["data"]["image/png"] == image and set(clean["outputs"][0]["data"]) == {
        "text/plain",
        "text/html",
        "application/json",
        "image/png",
    }
    markdown = {"cell_type": "markdown", "source": f"see {SECRET} there", "metadata": {}}
    assert without_secrets(markdown, (SECRET,)) == {
        "cell_type": "markdown",
        "source": f"see {REDACTED} there",
        "metadata": {},
    }
