"""An S3 on loopback that may be told to refuse, to ignore conditions as old servers do, and to cut connections."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from urllib.parse import unquote

from colabkit.loopback import signatures
from colabkit.loopback.messages import Answer, Client, Request
from colabkit.loopback.s3 import S3Server, refuse

_CONDITIONS = ("if-none-match", "if-match")


class RefusingS3(S3Server):
    """`expired` holds access keys whose time is over, `undeletable` buckets whose objects nobody may delete.

    ignores_conditions: If-None-Match and If-Match of writes are not looked at. `resets` of the next requests end
    without an answer, before they are carried out, or after it with `writes_before_reset`.
    """

    ignores_conditions, resets, writes_before_reset = False, 0, False

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.expired: set[str] = set()
        self.undeletable: set[str] = set()

    def exchange(self, request: Request, client: Client) -> None:
        """Answer one request of a client, or cut its connection."""
        if not self.resets:
            super().exchange(request, client)
            return
        self.resets -= 1
        if self.writes_before_reset:
            self.answer(request)
        client.stays = False
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()

    def answer(self, request: Request) -> Answer:
        """Refuse what it was told to, or answer."""
        if signatures.access_key(request) in self.expired:
            return refuse("ExpiredToken", "The provided token has expired.")
        bucket = unquote(request.path)[1:].partition("/")[0]
        deletes = request.method == "DELETE" and "uploadId" not in request.query
        if bucket in self.undeletable and (deletes or request.method == "POST" and "delete" in request.query):
            return refuse("AccessDenied", "Access Denied")
        return super().answer(request)

    def _write(self, request: Request, *more) -> Answer:
        if self.ignores_conditions:  # its signature, which covers them, has been looked at
            kept = {name: value for name, value in request.fields.items() if name not in _CONDITIONS}
            request = replace(request, fields=kept)
        return super()._write(request, *more)
