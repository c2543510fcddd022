"""Secrets are found in every spelling, across pieces and colours, and nothing else is taken for one."""

from __future__ import annotations

import base64
import html
import json
import random
from urllib.parse import quote

import pytest

from colabkit.headless.redaction import REDACTED, is_secret_name, redact, redact_pieces, redact_tree, secret_values

VALUE = "s3cr€t/'\"<&\\x y"
TOKENS = [
    "hf_" + "aB3" * 11,
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1" * 18,
    "github_pat_" + "a1_" * 12,
    "glpat-" + "x" * 20,
    "sk-proj-" + "Ab1_" * 10,
    "ya29." + "a0-_" * 10,
    "AIza" + "S" * 35,
    "xoxb-1234567890-abc",
    "npm_" + "a" * 36,
    "GOCSPX-" + "b" * 24,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
]


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *(
            (n, True)
            for n in (
                "HF_TOKEN",
                "hf_token",
                "WANDB_API_KEY",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
                "AWS_ANYTHING",
                "MY_SECRETS",
                "DB_PASSWORD",
                "DB_PWD",
                "PASSWORD",
                "GITHUB_PAT",
                "HUGGINGFACETOKEN",
                "OPENAI_APIKEY",
                "API_KEY",
            )
        ),
        *(
            (n, False)
            for n in (
                "PATH",
                "MAX_TOKENS",
                "TOKENIZERS_PARALLELISM",
                "MONKEY",
                "KEYBOARD",
                "AWS_REGION",
                "AWS_PROFILE",
                "AWS_DEFAULT_REGION",
                "AWS_ENDPOINT_URL",
                "AWS_ENDPOINT_URL_S3",
                "SSH_AUTH_SOCK",
                "LARGEST_DER",
                "STATE",
                "PRESET",
                "PUBLIC_KEY",
                "PWD",
                "OLDPWD",
                "PATTERN",
                "",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
            )
        ),
    ],
)
def test_names(name, is_secret):
    assert is_secret_name(name) == is_secret


def test_values():
    env = {
        "HF_TOKEN": "x" * 20,
        "DB_PASSWORD": "short",
        "PATH": "/usr/bin:/bin",
        "A_KEY": "  padded-value \n",
        "B_KEY": "",
        "SSH_KEY": __file__,
        "PEM_KEY": "-----BEGIN\nMIIEvQIBADANBgkqhkiG\n-----END",
    }
    # Longest first, so that none is left behind by a shorter one inside it; lines of a key, too.
    assert secret_values(env) == (env["PEM_KEY"], "MIIEvQIBADANBgkqhkiG", "x" * 20, "padded-value")
    assert secret_values({}) == ()


def test_every_spelling_is_found():
    values = (VALUE,)
    spellings = [
        VALUE,
        repr(VALUE),
        repr({"A": VALUE}),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        html.escape(VALUE),
        html.escape(VALUE, quote=False),
        quote(VALUE),
        quote(VALUE, safe=""),
        base64.b64encode(VALUE.encode()).decode(),
        f"{VALUE}{VALUE}",
        f"x{VALUE}y",
    ]
    for text in spellings:
        clean = redact(f"before {text} after", values)
        assert clean.startswith("before ") and clean.endswith(" after") and REDACTED in clean, text
        for part in ("s3cr", "x y", "%82%AC", "\\u20ac"):
            assert part not in clean, (text, clean)


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_told_by_their_form(token):
    for around in ("{}", "token={} next", "'{}'", '{{"t": "{}"}}', "({}),", "a\n{}\nb", "\x1b[32m'{}'\x1b[39m"):
        clean = redact(around.format(token))
        assert clean == around.format(REDACTED), clean


def test_what_is_no_secret_stays():
    for text in (
        "task-management-is-a-long-word-here",
        "sk-learn",
        "use sk-learn",
        "hf_hub_download(repo_id)",
        "AKIA",
        "eyJ",
        "a" * 5000,
        "my_hf_" + "a" * 30,
        "https://host/path?x=1",
        "http://host:8080/a@b",
        "Bearer of news",
        "",
        "0123456789" * 20,
        "the password is in DB_PASSWORD",
        "s3://bucket/key",
        "train: 5/10, loss 0.3",
        base64.b64encode(b"x" * 999).decode(),
    ):
        assert redact(text, ("unrelated-secret",)) == text


def test_parts_of_addresses_and_headers():
    assert redact("http://user:p4ss@host:80/x") == f"http://user:{REDACTED}@host:80/x"
    assert redact("Authorization: Bearer abcdefghijklmnop1234") == f"Authorization: Bearer {REDACTED}"
    assert redact("?X-Amz-Signature=0123456789abcdef0&x=1") == f"?X-Amz-Signature={REDACTED}&x=1"
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----"
    assert redact(f"a {key} b") == f"a {REDACTED} b"
    assert redact(f"a {key[:40]}") == f"a {REDACTED}", "cut off: still secret"


def test_colours_hide_nothing():
    text = "\x1b[31mhun\x1b[0mter2\x1b[1;32mhunter2\x1b[0m!"
    assert (
        "hunter" not in (clean := redact(text, ("hunter2hunter2",)))
        and clean.endswith("\x1b[0m!")
        and REDACTED in clean
    )
    assert redact("\x1b[31mred\x1b[0m", ("hunter2hunter2",)) == "\x1b[31mred\x1b[0m"


def test_across_pieces():
    """However a text is cut into pieces, they hold together what it holds redacted whole."""
    dice = random.Random(3)
    values = ("hunter2hunter2", VALUE)
    text = (
        f"start hunter2hunter2 middle {TOKENS[0]} \x1b[32m{VALUE}\x1b[0m and ünïcode hunter2hunter2hunter2hunter2 end"
    )
    whole = redact(text, values)
    for _ in range(300):
        cuts = sorted(dice.randrange(len(text) + 1) for _ in range(dice.randrange(8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        clean = redact_pieces(pieces, values)
        assert len(clean) == len(pieces) and "".join(clean) == whole


def test_a_secret_that_may_go_on_is_held_back():
    for length in range(6, 14):
        assert "hunter" not in redact("so far: " + "hunter2hunter2"[:length], ("hunter2hunter2",))
    assert redact("so far: hunt", ("hunter2hunter2",)) == "so far: hunt", "as much as every word has"
    assert redact("and hf_abcdefghijkl") == f"and {REDACTED}"
    assert redact("hunter2hunt\nno more", ("hunter2hunter2",)) == "hunter2hunt\nno more", "it did not go on"


def test_trees():
    tree = {
        "text": "hunter2hunter2",
        "n": 1,
        "none": None,
        "deep": [{"hunter2hunter2": ["a", "hunter2", "hunter2"]}, 2.5, True],
    }
    clean = redact_tree(tree, ("hunter2hunter2",))
    assert clean == {"text": REDACTED, "n": 1, "none": None, "deep": [{REDACTED: ["a", REDACTED, ""]}, 2.5, True]}
    assert tree["text"] == "hunter2hunter2", "the original is left alone"


def test_large_texts_are_fast():
    import time

    text = base64.b64encode(random.Random(1).randbytes(3_000_000)).decode() + "step 4: loss 0.3\n" * 50_000
    values = tuple(f"secret-value-{i}" for i in range(20))
    began = time.monotonic()
    assert redact(text, values) == text
    assert time.monotonic() - began < 3
