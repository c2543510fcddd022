"""Outputs that stay small however long a cell prints: streams joined, overwritten lines and the middle left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from colabkit.headless.redaction import redact_pieces, redact_tree

MOST_CHARACTERS = 400_000  # of one stream of one cell, between two displays
_KEPT_HEAD, _KEPT_TAIL = 80_000, 240_000
_LEFT_OUT = "\n[... the output was too long: lines were left out here ...]\n"
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")  # what a carriage return puts new text over
_NO_TEXT = ("image/png", "image/jpeg", "image/gif", "application/pdf")


def settle_stream(outputs: list[Any]) -> None:
    """Join the newest output to an earlier one of the same stream, unless something was displayed between them.

    Both streams of a cell stay one output each however they alternate. Only the newest output is ever removed, so
    that the places of displays that are updated stay right.
    """
    newest = outputs[-1]
    for earlier in reversed(outputs[:-1]):
        if earlier["output_type"] != "stream":
            break
        if earlier["name"] == newest["name"]:
            outputs.pop()
            text, added = earlier["text"], newest["text"]
            if "\r" in added or "\r" in text[-1000:]:  # then the line it ends with may be overwritten
                start = text.rfind("\n") + 1
                text, added = text[:start], _OVERWRITTEN.sub("", text[start:] + added)
            earlier["text"] = shortened(text + added)
            return
    newest["text"] = shortened(_OVERWRITTEN.sub("", newest["text"]))


def shortened(text: str) -> str:
    """Leave out the middle of a text that is too long, at ends of lines where there are any."""
    if len(text) <= MOST_CHARACTERS:
        return text
    head, tail = text[:_KEPT_HEAD], text[-_KEPT_TAIL:]
    head = head[: head.rfind("\n") + 1] or head
    tail = tail[tail.find("\n") + 1 :] or tail
    return head.removesuffix(_LEFT_OUT) + _LEFT_OUT.lstrip("\n" if head.endswith("\n") else "") + tail


def without_secrets(cell: Mapping[str, Any], values: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a cell with all secrets redacted, also those that stand across several outputs of a stream."""
    clean = redact_tree({name: part for name, part in cell.items() if name != "outputs"}, values)
    if "outputs" not in cell:
        return clean
    outputs = [dict(output) for output in cell["outputs"]]
    for name in ("stdout", "stderr"):
        pieces = [output for output in outputs if output["output_type"] == "stream" and output["name"] == name]
        for output, text in zip(pieces, redact_pieces([o["text"] for o in pieces], values), strict=True):
            output["text"] = text
    for output in outputs:
        if output["output_type"] != "stream":
            output.update(redact_tree({k: v for k, v in output.items() if k != "data"}, values))
            if "data" in output:
                output["data"] = {
                    kind: data if kind in _NO_TEXT else redact_tree(data, values)
                    for kind, data in output["data"].items()
                }
    return clean | {"outputs": outputs}
