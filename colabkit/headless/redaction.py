"""Secrets in text: which variables hold them, where they stand in a text, and the text without them.

Known are the values of environment variables whose names say so, in the spellings in which they get printed, and tokens
that can be told by their form. Terminal colours inside a secret do not hide it.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
_SHORTEST_VALUE = 8  # characters: shorter values are words that stand everywhere, such as "true"
_SHORTEST_LINE = 16  # of a value of several lines, such as a private key, whose lines may be printed one by one
_SHORTEST_BEGINNING = 6  # characters of a secret that may still go on at the end of a text

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|KEY|APIKEY|PAT|PASS|PASSWD|PASSPHRASE|AUTH)$|._PWD$|[A-Z]TOKEN$|APIKEY$|SECRET|PASSWORD|PRIVATE_KEY|ACCESS_KEY|^AWS_"
)
_NO_SECRET_NAME = re.compile(
    r"PUBLIC_KEY|^AWS_(?:(?:DEFAULT_)?REGION|ENDPOINT|ENDPOINT_URL.*|PROFILE|CONFIG_FILE|CA_BUNDLE|"
    r"SHARED_CREDENTIALS_FILE|.*_TOKEN_FILE|VIRTUAL_HOSTED_.*|EC2_METADATA_.*|ALLOW_HTTP|"
    r"SKIP_SIGNATURE|DEFAULT_OUTPUT|PAGER|EXECUTION_ENV)$"
)
# Tokens that are told by their form: how they begin, and how they go on.
_FORMS = {
    ("hf_",): r"[A-Za-z0-9]{20,}",  # Hugging Face
    ("AKIA", "ASIA"): r"[0-9A-Z]{16}(?![0-9A-Za-z])",  # AWS key ids
    ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"): r"[A-Za-z0-9]{20,}",
    ("github_pat_",): r"\w{22,}",
    ("glpat-",): r"[\w-]{20,}",
    ("sk-",): r"[\w-]{20,}",
    ("xoxa-", "xoxb-", "xoxe-", "xoxp-", "xoxr-", "xoxs-"): r"[\w-]{10,}",
    # the last three: Google
    ("npm_",): r"[A-Za-z0-9]{30,}",
    ("ya29.", "GOCSPX-"): r"[\w-]{20,}",
    ("AIza",): r"[\w-]{35}",
    ("eyJ",): r"[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?",  # JSON web tokens
}
# Searched by how they begin, which is fast; then by the whole form from there on. The group is what is secret.
_TOKENS = tuple(
    (begin, re.compile(rf"(?<!\w)({re.escape(begin)}(?:{rest}|[\w.-]{{10,}}\Z))"))
    for begins, rest in _FORMS.items()
    for begin in begins
)
_PLACES = (
    ("://", re.compile(r"://[^\s/:@'\"]*:([^\s/@'\"]+)@")),  # a password in an address
    ("earer ", re.compile(r"earer ([A-Za-z0-9._~+/=-]{16,})")),
    ("Signature=", re.compile(r"Signature=([\w%+/=.-]{16,})")),
    ("Security-Token=", re.compile(r"Security-Token=([\w%+/=.-]{16,})")),
    ("sig=", re.compile(r"(?<=[?&])sig=([\w%+/=.-]{16,})")),
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret, as HF_TOKEN, WANDB_API_KEY and DB_PASSWORD do."""
    name = name.upper()
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def secret_values(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of the variables that hold secrets, longest first; short ones, and paths of files, left out."""
    found = set()
    for name, value in env.items():
        value = value.strip()
        is_path = os.path.isabs(value) and os.path.exists(value)
        if is_secret_name(name) and len(value) >= _SHORTEST_VALUE and not is_path:
            found.add(value)
            found |= {line.strip() for line in value.splitlines() if len(line.strip()) >= _SHORTEST_LINE}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact(text: str, values: Iterable[str] = ()) -> str:
    """Return the text with "[redacted]" where a secret stands, or begins at the very end.

    Example:
        >>> redact("login with hf_abcdefghijklmnopqrstuvwxyz, please")
        'login with [redacted], please'
    """
    return redact_pieces([text], values)[0]


def redact_pieces(pieces: Sequence[str], values: Iterable[str] = ()) -> list[str]:
    """Redact texts that were one text, as a stream that came in several messages: a secret may stand across them."""
    spans = _spans("".join(pieces), tuple(values))
    if not spans:
        return list(pieces)
    cleaned, start = [], 0
    for piece in pieces:
        stop, kept, at = start + len(piece), [], start
        for first, last in spans:
            if last <= start or first >= stop:
                continue
            kept.append(piece[at - start : max(first, start) - start])
            if first >= start:
                kept.append(REDACTED)
            at = min(last, stop)
        cleaned.append("".join(kept) + piece[at - start :])
        start = stop
    return cleaned


def redact_tree(value: Any, values: Iterable[str] = ()) -> Any:
    """Return a copy of JSON-like data with every text in it redacted, names of fields included."""
    values = tuple(values)
    if isinstance(value, str):
        return redact(value, values)
    if isinstance(value, Mapping):
        return {redact(k, values) if isinstance(k, str) else k: redact_tree(v, values) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, str) for item in value):
            return redact_pieces(value, values)
        return [redact_tree(item, values) for item in value]
    return value


def _spans(text: str, values: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return where secrets stand, in order and apart from each other."""
    coloured = list(_COLOUR.finditer(text)) if "\x1b[" in text else []
    if not coloured:
        return _merged(_found(text, values))
    # Searched without the colours; the places are then translated back.
    plain, starts, originals, at, length = [], [], [], 0, 0
    for match in (*coloured, None):
        part = text[at : match.start() if match else len(text)]
        if part:
            plain.append(part)
            starts.append(length)
            originals.append(at)
            length += len(part)
        at = match.end() if match else at

    def back(place: int) -> int:
        index = bisect_right(starts, place) - 1
        return originals[index] + place - starts[index]

    return _merged((back(first), back(last - 1) + 1) for first, last in _found("".join(plain), values))


def _found(text: str, values: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for spelling in _spellings(values):
        at = text.find(spelling)
        while at >= 0:
            yield at, at + len(spelling)
            at = text.find(spelling, at + 1)
        for length in range(min(len(spelling) - 1, len(text)), _SHORTEST_BEGINNING - 1, -1):
            if text.endswith(spelling[:length]):
                yield len(text) - length, len(text)
                break
    for begin, form in (*_TOKENS, *_PLACES):
        at = text.find(begin)
        while at >= 0:
            if match := form.match(text, at):
                yield match.span(1)
            at = text.find(begin, at + 1)
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield match.span()


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


@lru_cache(maxsize=8)
def _spellings(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return each value as it is, and as it stands in Python, JSON, HTML, addresses and base64."""
    found = set()
    for value in filter(None, values):
        found |= {
            value,
            repr(value)[1:-1],
            repr(value + "'\"")[1:-4],
            json.dumps(value)[1:-1],
            json.dumps(value, ensure_ascii=False)[1:-1],
            html.escape(value),
            html.escape(value, quote=False),
            quote(value, safe=""),
            quote(value),
            quote_plus(value),
            base64.b64encode(value.encode()).decode().rstrip("="),
        }
    return tuple(sorted(found, key=lambda spelling: (-len(spelling), spelling)))
