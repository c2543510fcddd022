"""Addresses: the kind of place that one names, and what was meant when it is none that we know."""

from __future__ import annotations

import difflib
import re

HUB_BUCKETS = "hf://buckets/"
FORMS = {"hub": "hub:ORG/NAME", "s3": "s3://BUCKET/PREFIX", "gs": "gs://BUCKET/PREFIX"}
_MEANT = {"hf": "hub", "huggingface": "hub", "gcs": "gs", "s3a": "s3", "s3n": "s3"}


def split_scheme(address: str) -> tuple[str, str]:
    """Return (scheme, rest). The scheme is "" for a folder, and ends in "?" when it is one of ours written wrongly."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?", address)  # one letter alone is a Windows drive
    scheme = found[1].lower() if found else ""
    if not found or (not found[2] and scheme not in (*FORMS, *_MEANT)):
        return "", address
    well_written = scheme == found[1] and bool(found[2]) == (scheme != "hub")
    return scheme + ("?" if scheme in FORMS and not well_written else ""), address[found.end() :]


def meant(scheme: str, rest: str) -> str:
    """Guess which address was meant by one of another scheme."""
    scheme = scheme.rstrip("?")
    web = re.match(r"(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(.*)", rest)
    if scheme == "file":
        return rest
    if web or _MEANT.get(scheme, scheme) == "hub":
        path = re.sub(r"^datasets/", "", (web[1] if web else rest).partition("?")[0])
        return "hub:" + re.sub(r"/(?:tree|blob|resolve)/.*", "", path).strip("/")
    close = difflib.get_close_matches(scheme, FORMS, n=1, cutoff=0.4)
    scheme = _MEANT.get(scheme) or (close[0] if close else "")
    return f"{scheme}://{rest}" if scheme in ("s3", "gs") else ""


def without_user(address: str) -> str:
    """Leave out what may be secret: a user before the host, and a query."""
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]
