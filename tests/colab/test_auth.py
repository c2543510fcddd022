"""Tests of colabkit.colab.auth with the real google-auth library and a token server on loopback."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from colabkit.colab import auth
from colabkit.colab.errors import AuthorizationError, Error

pytest.importorskip("google.auth.transport.requests")  # imported here: on a busy machine that alone takes seconds
pytest.importorskip("google.oauth2.service_account")


@pytest.fixture(scope="module")
def private_key():
    cryptography = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization

    key = cryptography.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def tokens(monkeypatch):
    """A server that gives tokens; `answer` is its (status, JSON), `asked` how often it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            server.asked += 1
            if server.delay:
                time.sleep(server.delay)
            body = json.dumps(server.answer[1]).encode()
            self.send_response(server.answer[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked, server.delay = True, 0, 0.0
    server.block_on_close = False
    server.answer = (200, {"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"})
    server.address = f"http://127.0.0.1:{server.server_address[1]}/token"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send_to(server.address, monkeypatch)
    yield server
    server.shutdown()
    server.server_close()


def send_to(address: str, monkeypatch) -> None:
    """Have users' credentials ask for tokens here: the library knows one address for them, and it is Google's."""
    monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", address)


def user_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"})
    )
    return path


def key_file(path: Path, token_uri: str, private_key: str) -> Path:
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "proj",
                "private_key_id": "k",
                "token_uri": token_uri,
                "private_key": private_key,
                "client_email": "a@proj.iam.gserviceaccount.com",
            }
        )
    )
    return path


def test_without_credentials_the_cure_is_told_at_once(monkeypatch):
    began = time.monotonic()
    with pytest.raises(AuthorizationError, match="gcloud auth application-default login") as caught:
        auth.authenticate_user(project_id="p")
    assert time.monotonic() - began < 5 and isinstance(caught.value, Error)
    assert "GOOGLE_CLOUD_PROJECT" not in os.environ


def test_a_named_file_is_used_and_tried(tokens, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user_file(tmp_path / "c.json")))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "before")
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "before")
    assert auth.authenticate_user() is None
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "before"
    auth.authenticate_user(project_id="proj-1")
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == os.environ["GOOGLE_CLOUD_QUOTA_PROJECT"] == "proj-1"
    assert tokens.asked == 2 and capsys.readouterr().out == ""


def test_the_file_gcloud_writes_is_found(tokens, bare_machine):
    user_file(bare_machine / ".config/gcloud/application_default_credentials.json")
    auth.authenticate_user()
    assert tokens.asked == 1


def test_a_service_account_serves_both(tokens, tmp_path, monkeypatch, private_key):
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path / "k.json", tokens.address, private_key))
    )
    auth.authenticate_user()
    auth.authenticate_service_account()
    assert tokens.asked == 1


def test_revoked_credentials_are_refused_without_showing_them(tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user_file(tmp_path / "c.json")))
    tokens.answer = (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
    with pytest.raises(AuthorizationError, match="expired or revoked") as caught:
        auth.authenticate_user()
    assert "correct GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value) and "client_secret" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"type": "else"}', '{"type": "authorized_user"}', "\0\xff"])
def test_broken_files_are_refused(tmp_path, monkeypatch, content):
    (tmp_path / "c.json").write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "c.json"))
    for call in (auth.authenticate_user, auth.authenticate_service_account):
        with pytest.raises(AuthorizationError, match="fix:"):
            call()


def test_no_connection_is_said_and_accepted(tmp_path, monkeypatch, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        send_to(f"http://127.0.0.1:{unused.getsockname()[1]}/token", monkeypatch)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user_file(tmp_path / "c.json")))
    began = time.monotonic()
    auth.authenticate_user()
    assert time.monotonic() - began < 5.5 and "not tried" in capsys.readouterr().out


def test_a_silent_google_does_not_hold_the_call(tokens, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(auth, "_SECONDS", 1.0)
    tokens.delay = 30.0
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user_file(tmp_path / "c.json")))
    began = time.monotonic()
    auth.authenticate_user()
    assert time.monotonic() - began < 4 and "did not answer in time" in capsys.readouterr().out


def test_a_metadata_server_that_never_answers_is_not_waited_for(monkeypatch):
    from google.auth import _default

    monkeypatch.setattr(auth, "_SECONDS", 1.0)
    monkeypatch.setattr(_default, "_get_gce_credentials", lambda *a, **k: time.sleep(30))
    began = time.monotonic()
    with pytest.raises(AuthorizationError, match="none found within 1 seconds"):
        auth.authenticate_user()
    assert time.monotonic() - began < 4


def test_a_given_key_is_used_until_the_process_ends(tokens, tmp_path, monkeypatch, private_key, capsys):
    monkeypatch.setenv("COLABKIT_UPLOADS", str(key_file(tmp_path / "k.json", tokens.address, private_key)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "")
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "")
    ended = []
    monkeypatch.setattr(auth.atexit, "register", lambda *a, **k: ended.append((a, k)))
    auth.authenticate_service_account()
    path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "proj" and private_key not in capsys.readouterr().out
    auth.authenticate_user()
    (remove, *args), options = ended[0]
    remove(*args, **options)
    assert not path.parent.exists()


def test_three_wrong_files_are_enough(tmp_path, monkeypatch, capsys):
    (tmp_path / "no.json").write_text('{"type": "authorized_user"}')
    monkeypatch.setenv("COLABKIT_UPLOADS", str(tmp_path / "no.json"))
    with pytest.raises(AuthorizationError, match="Failed to fetch user credentials"):
        auth.authenticate_service_account()
    assert capsys.readouterr().out.count("Invalid credentials: please try again.") == 3


@pytest.mark.parametrize("project", ["", 7, b"p"])
def test_a_project_that_is_none(project):
    with pytest.raises(AuthorizationError, match="gcloud projects list"):
        auth.authenticate_user(project_id=project)


def test_colab_enterprise_is_warned(monkeypatch, capsys):
    monkeypatch.setenv("VERTEX_PRODUCT", "COLAB_ENTERPRISE")
    auth.authenticate_user()
    assert capsys.readouterr().out.startswith("WARNING: google.colab.auth.authenticate_user() is not supported")
