"""A chat endpoint on this machine that judges answers by a word in them."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer


class Endpoint(BaseHTTPRequestHandler):
    """Says yes where the answer holds `fool`, mumbles where it holds `hm`, fails where it holds `down`."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        type(self).asked.append(text)
        self.send_response(400 if "down" in text else 200)
        self.end_headers()
        said = "well" if "hm" in text else "Yes." if "fool" in text else "no"
        usage = {"prompt_tokens": 10, "completion_tokens": 1}
        self.wfile.write(json.dumps({"choices": [{"message": {"content": said}}], "usage": usage}).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Its URL, up to /v1."""
    Endpoint.asked = []
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
