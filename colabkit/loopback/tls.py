"""TLS for a server of many small requests: a whole window of records is read in one call to the system.

ssl.SSLSocket asks the system twice for each record of 16 KiB, which costs a server of small objects half its time.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any

_WINDOW_BYTES = 1 << 18


class TlsSocket(io.RawIOBase):
    """The server's side of one connection: reads as a file does, writes as a socket does.

    Raises: OSError at the handshake.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext):
        self._sock, self._incoming, self._outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._window = memoryview(bytearray(_WINDOW_BYTES))
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    raise ConnectionError("gone within the handshake") from None
            except ssl.SSLError:
                self._flush()  # tells the other side why
                raise
        self._flush()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what has come, at least a byte; 0 at the end."""
        buffer, done = memoryview(buffer), 0
        while done < len(buffer):
            try:
                count = self._tls.read(len(buffer) - done, buffer[done:])
            except ssl.SSLWantReadError:
                if done or not self._fill():
                    return done
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return done
            if not count:
                return done
            done += count
        return done

    def makefile(self, mode: str, buffering: int) -> io.BufferedReader:
        """Return a buffered reader of this."""
        return io.BufferedReader(self, buffering)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        data = memoryview(data)
        for start in range(0, len(data), _WINDOW_BYTES):
            self._tls.write(data[start : start + _WINDOW_BYTES])
            self._flush()

    def setsockopt(self, *option: int) -> None:
        self._sock.setsockopt(*option)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        super().close()
        self._sock.close()

    def _fill(self) -> bool:
        count = self._sock.recv_into(self._window)
        if not count:
            self._incoming.write_eof()
            return False
        self._incoming.write(self._window[:count])
        return True

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)
