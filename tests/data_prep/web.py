"""A web server of this machine that serves a folder, and misbehaves as it is told."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@dataclass
class Web:
    """What the server does, and what it was asked."""

    folder: Path
    url: str = ""
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    heeds_if_range: bool = True
    says_length: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes of the next answers
    refuse: list[int] = field(default_factory=list)  # status codes of the next answers
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@contextmanager
def serve(folder: Path) -> Iterator[Web]:
    web = Web(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.asked.append((self.path, wanted))
            file = web.folder / self.path.lstrip("/")
            if web.refuse or not file.is_file():
                self.send_error(web.refuse.pop(0) if web.refuse else 404)
                return
            content, start = file.read_bytes(), 0
            same = self.headers.get("If-Range") in (web.etag, web.modified)
            same |= not web.heeds_if_range
            if wanted and web.ranges and same:
                found = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert found
                start = int(found[1])
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content)}/{len(content)}")
            for name, value in (("ETag", web.etag), ("Last-Modified", web.modified)):
                if value:
                    self.send_header(name, value)
            if web.says_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + web.break_after.pop(0) if web.break_after else len(content)
            self.wfile.write(content[start:end])  # then the connection is closed

        def log_message(self, format: str, *args: object) -> None:
            """Tests are silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
