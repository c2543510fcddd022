"""S3 on loopback: moto in a process of its own, so that its state is fresh and it shares no lock with what is measured.

moto copies an object whole for every ranged read and closes the connection after it; so ranged reads are answered here
from moto's objects, and everything else by moto. It looks at no signature, but anonymous reads of objects are refused
and so are presigned links that have expired.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from colabkit.loopback.messages import Answer, Request, answer_range
from colabkit.loopback.serving import HttpServer

_CONTROL = "/-/deny/"  # no bucket has such a name
_CREDENTIAL = "test/20240101/us-east-1/s3/aws4_request"
_SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={_CREDENTIAL}, SignedHeaders=host, Signature=0"}


class S3Server:
    """Serve buckets on 127.0.0.1 between entering and leaving."""

    def __enter__(self) -> Self:
        import urllib3

        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.s3"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"moto did not start: exit code {self._process.wait()}")
        self.url = f"http://127.0.0.1:{port}"
        self._pool = urllib3.PoolManager()
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.clear()
        self._process.stdin.close()  # tells it to end
        self._process.wait(10)
        self._process.stdout.close()

    def put(self, bucket: str, key: str, content: bytes | Path) -> None:
        """Store an object; makes the bucket when it is missing."""
        body = content if isinstance(content, bytes) else content.read_bytes()
        address = f"/{bucket}/{quote(key)}"
        status = self._send("PUT", address, body)
        if status == 404:
            self._send("PUT", f"/{bucket}", b"")
            status = self._send("PUT", address, body)
        if status != 200:
            raise RuntimeError(f"moto answered {status} to PUT {address}")

    def deny(self, bucket: str) -> None:
        """Answer everything about a bucket with 403 from now on."""
        self._send("PUT", f"{_CONTROL}{bucket}", b"")

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables that lead boto3 and obstore here, or to a proxy before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _send(self, method: str, path: str, body: bytes) -> int:
        return self._pool.request(method, self.url + path, body=body, headers=_SIGNED).status


class MotoServer(HttpServer):
    """moto's application behind a quick server, with ranged reads of its own."""

    def __init__(self) -> None:
        super().__init__()
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._denied: set[str] = set()

    def answer(self, request: Request) -> Answer:
        """Refuse, answer a ranged read, or let moto answer."""
        if request.path.startswith(_CONTROL):
            self._denied.add(request.path.removeprefix(_CONTROL))
            return Answer(200)
        bucket, _, key = request.path[1:].partition("/")
        if bucket in self._denied or _has_expired(request):
            return _refuse(403, "AccessDenied", "Access Denied" if bucket in self._denied else "Request has expired")
        if request.method in ("GET", "HEAD") and key and "range" in request.fields and _is_plain(request):
            if (found := _find(unquote(bucket), unquote(key))) is not None:
                return _read(request, found)
        return _ask(self._moto, request)

    def note(self, request: Request, status: int) -> None:
        """Nobody reads it in this process."""


def _is_plain(request: Request) -> bool:
    """Tell whether a request is signed and asks for the newest version of an object."""
    query = request.query
    return ("authorization" in request.fields or "X-Amz-Signature" in query) and not {
        "versionId",
        "partNumber",
    } & query.keys()


def _has_expired(request: Request) -> bool:
    query = request.query if "X-Amz-Expires" in request.target else {}
    if not query:
        return False
    signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.now(UTC) > signed + timedelta(seconds=int(query["X-Amz-Expires"][0]))


def _find(bucket: str, key: str):
    """Return moto's object, or None."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import FakeDeleteMarker, s3_backends

    buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets
    found = buckets[bucket].keys.get(key) if bucket in buckets else None
    return None if isinstance(found, FakeDeleteMarker) else found


def _read(request: Request, found) -> Answer:
    def take(start: int, stop: int) -> bytes:
        with found.lock:
            found._value_buffer.seek(start)
            return found._value_buffer.read(stop - start)

    answer = answer_range(
        request,
        found.size,
        take,
        {"Content-Type": "binary/octet-stream", "ETag": found.etag, "Last-Modified": found.last_modified_RFC1123},
    )
    return _refuse(416, "InvalidRange", "The requested range is not satisfiable") if answer.status == 416 else answer


def _ask(application, request: Request) -> Answer:
    """Let a WSGI application answer a request."""
    path, _, query = request.target.partition("?")
    host, _, port = request.fields.get("host", "127.0.0.1:80").partition(":")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    fields = {name: value for name, value in request.fields.items() if name not in ("transfer-encoding", "expect")}
    fields["content-length"] = str(len(request.body))
    for name, value in fields.items():
        name = name.upper().replace("-", "_")
        environ[name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"] = value
    answer = Answer(200)

    def start_response(status: str, headers: list[tuple[str, str]], failure: object = None) -> None:
        answer.status, answer.fields = int(status[:3]), dict(headers)

    blocks = application(environ, start_response)
    answer.body = b"".join(blocks)
    length = next((answer.fields.pop(name) for name in list(answer.fields) if name.lower() == "content-length"), None)
    answer.length = int(length) if request.method == "HEAD" and length else None
    return answer


def _refuse(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, {"Content-Type": "application/xml"}, text.encode())


def main() -> None:
    """Serve until standard input is closed, which it is when the parent ends; prints the port."""
    with MotoServer() as server:
        print(server.port, flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        threading.Event().wait()


if __name__ == "__main__":
    main()
