"""A server of one file on this machine, which misbehaves as tests tell it to."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Server(http.server.ThreadingHTTPServer):
    """A file server on 127.0.0.1 that misbehaves as told, and remembers what it was asked for."""

    def __init__(self, content: bytes, path: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.asked: list[str | None] = []
        self.breaks: list[int] = []  # bytes after which the next connections break off
        self.ranges = True
        self.status = 200
        self.length: int | None = len(content)
        self.url = f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with the server's content, from the byte that is asked for."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        total = len(self.server.content) if self.server.length is None else self.server.length
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if self.server.length is not None:
            self.send_header("Content-Length", str(self.server.length - start))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks.pop(0)] if self.server.breaks else body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[None]:
    """Answers while entered."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()
