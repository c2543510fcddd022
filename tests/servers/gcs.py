"""Google Cloud Storage on loopback: gcp-storage-emulator in memory, with ranged downloads, pages and order put right.

The emulator's own server speaks HTTP/1.0 to one client at a time, copies whole objects, and knows neither 416 nor
ranges from the end; so media is answered here, over the JSON and the XML interface (/BUCKET/NAME, which obstore
speaks), and the rest (listing, metadata, uploads) by the emulator's handlers.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace
from urllib.parse import unquote

from colabkit.loopback.messages import Answer, Request, answer_range
from colabkit.loopback.serving import HttpServer

_OBJECT = re.compile(r"(?P<media>/download)?(?:/storage/v1)?/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
_XML = re.compile(r"/(?!(?:b|storage|upload|download|batch)/)(?P<bucket>[^/]+)/(?P<name>.+)")
_BUCKET = re.compile(r"(?:/upload|/download)?(?:/storage/v1)?/b/([^/]+)")


class GcsServer(HttpServer):
    """Serve buckets from memory; `denied` are buckets that answer 403."""

    def __init__(self) -> None:
        super().__init__()
        self._storage, self._lock = _make_storage(), threading.Lock()
        self.denied: set[str] = set()

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Store an object; makes the bucket when it is missing."""
        from gcp_storage_emulator.handlers import buckets, objects

        with self._lock:
            if not self._storage.get_bucket(bucket):
                buckets.create_bucket(bucket, self._storage)
            about = objects._make_object_resource(self.url, bucket, name, "application/octet-stream", str(len(content)))
            self._storage.create_file(bucket, name, content, objects._checksums(content, about))

    def deny(self, bucket: str) -> None:
        """Answer everything about a bucket with 403 from now on."""
        self.denied.add(bucket)

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables that lead gcsfs here, or to a proxy before it; give it token="anon" besides."""
        return {
            "STORAGE_EMULATOR_HOST": url or self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
        }

    def answer(self, request: Request) -> Answer:
        """Answer media here and leave the rest to the emulator."""
        path = request.path
        if (bucket := _BUCKET.match(path)) and unquote(bucket[1]) in self.denied:
            return _refuse(403, "Caller does not have storage.objects.get access to the Google Cloud Storage object.")
        match = _OBJECT.fullmatch(path)
        if match and request.method in ("GET", "HEAD") and (match["media"] or request.query.get("alt") == ["media"]):
            return self._media(request, unquote(match["bucket"]), unquote(match["name"]))
        if xml := _XML.fullmatch(path):
            return self._xml(request, unquote(xml["bucket"]), unquote(xml["name"]))
        with self._lock:
            return _ask_emulator(request, self._storage)

    def _xml(self, request: Request, bucket: str, name: str) -> Answer:
        """Answer as the XML interface does, as far as obstore insists on it."""
        if bucket in self.denied:
            return Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        if not self._storage.get_bucket(bucket):
            return Answer(404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchBucket</Code></Error>")
        if request.method in ("GET", "HEAD"):
            answer = self._media(request, bucket, name)
        else:
            with self._lock:
                answer = _ask_emulator(request, self._storage)
        if answer.status in (200, 206):
            answer.fields.setdefault("Last-Modified", formatdate(usegmt=True))
            answer.fields.setdefault("ETag", '"1"')
        return answer

    def _media(self, request: Request, bucket: str, name: str) -> Answer:
        from gcp_storage_emulator.exceptions import NotFound

        try:
            about, content = (
                self._storage.get_file_obj(bucket, name),
                self._storage.get_file(bucket, name, show_error=False),
            )
        except NotFound:
            return _refuse(404, f"No such object: {ascii(f'{bucket}/{name}')}")
        query = request.query
        if query.get("generation", [about["generation"]]) != [about["generation"]]:
            return _refuse(404, "No such object in this generation")
        if query.get("ifGenerationMatch", [about["generation"]]) != [about["generation"]]:
            return _refuse(412, "At least one of the pre-conditions you specified did not hold.")
        view = memoryview(content)
        return answer_range(
            request,
            len(content),
            lambda start, stop: view[start:stop],
            {
                "Content-Type": about["contentType"] or "application/octet-stream",
                "ETag": f'"{about["etag"]}"',
                "X-Goog-Generation": about["generation"],
                "X-Goog-Metageneration": about["metageneration"],
                "X-Goog-Hash": f"crc32c={about['crc32c']},md5={about['md5Hash']}",
            },
        )


def _make_storage():
    from gcp_storage_emulator.storage import Storage

    class InMemory(Storage):
        """Lists objects by name as the real service does, and keeps no journal."""

        def __init__(self) -> None:
            super().__init__(use_memory_fs=True)

        def get_file_list(self, *arguments, **options):
            files, folders = super().get_file_list(*arguments, **options)
            return sorted(files, key=lambda about: about["name"].encode()), sorted(folders)

        def _write_config_to_file(self) -> None:
            pass

    return InMemory()


class _Names(dict):
    """Headers that may be asked for in any case."""

    def get(self, name: str, default: str | None = None) -> str | None:
        return super().get(name.lower(), default)


def _ask_emulator(request: Request, storage: object) -> Answer:
    """Let the emulator's handlers answer a request, as its own server would."""
    from gcp_storage_emulator.server import Router

    answer, stream = Answer(200), io.BytesIO()
    fields = _Names({**request.fields, "content-length": str(len(request.body))})
    fields.pop("transfer-encoding", None)

    def set_status(status: int, phrase: str) -> None:
        answer.status = status

    Router(
        SimpleNamespace(
            path=request.target,
            headers=fields,
            rfile=io.BytesIO(request.body),
            storage=storage,
            wfile=stream,
            server=SimpleNamespace(server_address=("127.0.0.1", 0)),
            send_response=set_status,
            send_header=answer.fields.__setitem__,
            end_headers=lambda: None,
        )
    ).handle(request.method.replace("HEAD", "GET"))
    answer.fields.pop("Content-Length", None)
    answer.body = stream.getvalue()
    if answer.status >= HTTPStatus.BAD_REQUEST and not answer.body:
        return _refuse(answer.status, HTTPStatus(answer.status).phrase)
    return answer


def _refuse(status: int, message: str) -> Answer:
    error: Mapping = {
        "error": {"code": status, "message": message, "errors": [{"message": message, "domain": "global"}]}
    }
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(error).encode())
