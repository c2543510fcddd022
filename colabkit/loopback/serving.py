"""A server on loopback: one thread a connection, connections kept, every request written down."""

from __future__ import annotations

import socket
import ssl
import threading
import traceback
from typing import Self

from colabkit.loopback.messages import Answer, Client, Request, TlsClient
from colabkit.loopback.tls import TlsSocket


class HttpServer:
    """Answers on 127.0.0.1 between entering and leaving; `requests` lists (method, path, range header, status)."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._tls = tls
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.requests: list[tuple[str, str, str | None, int]] = []
        self._clients: set[Client] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True, name=f"{type(self).__name__} {self.port}")
        self._closing = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections and cut those that are open; the second time nothing is left to do."""
        if self._closing:
            return
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the accepting thread
        self._thread.join()
        self._listener.close()
        for client in list(self._clients):
            try:
                client.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone by itself

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; what it raises is printed and answered with 500."""
        raise NotImplementedError

    def exchange(self, request: Request, client: Client) -> None:
        """Answer one request of a client."""
        try:
            answer = self.answer(request)
        except Exception:
            traceback.print_exc()
            answer = Answer(500, {"Content-Type": "text/plain; charset=utf-8"}, traceback.format_exc().encode())
        self.note(request, answer.status)
        client.send(answer, with_body=request.method != "HEAD")

    def note(self, request: Request, status: int) -> None:
        """Write down a request."""
        self.requests.append((request.method, request.path, request.fields.get("range"), status))

    def hung_up(self, client: Client) -> None:
        """Let go of what was kept for a client that has gone."""

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._closing:
                sock.close()
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self._tls is not None:
            try:
                client = TlsClient(TlsSocket(sock, self._tls))
            except OSError:  # it does not trust us, or has gone
                sock.close()
                return
        else:
            client = Client(sock)
        self._clients.add(client)
        try:
            while not self._closing and client.stays and (request := client.read_request()) is not None:
                self.exchange(request, client)
        except OSError:
            pass  # the client has gone
        except ValueError:
            client.stays = False
            client.send(Answer(400, {}, b"not HTTP/1.1"))
        finally:
            self._clients.discard(client)
            self.hung_up(client)
            client.close()
