"""A server with OpenAI's chat interface on this machine that answers from a script and errs."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT = "…cut"  # a text that ends so is answered without it, as cut off at the cap
Answer = str | int | bytes  # a text, an HTTP status, or all that is sent in place of JSON


class Requests(list[dict[str, Any]]):
    """The bodies of all requests, and the keys they came with."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()


@contextmanager
def serving(script: Callable[[int, dict[str, Any]], Answer]) -> Iterator[tuple[str, Requests]]:
    """Serves `script(number of the request, its body)`; yields the address and the requests."""
    requests, counting = Requests(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with counting:
                requests.append(body)
                requests.keys.add(self.headers["Authorization"])
                number = len(requests) - 1
            answer = script(number, body)
            status = answer if isinstance(answer, int) else 200
            cut = isinstance(answer, str) and answer.endswith(CUT)
            text = answer.removesuffix(CUT) if isinstance(answer, str) else None
            message = {"role": "assistant", "content": text}
            whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted"}
            choice = {"index": 0, "finish_reason": "length" if cut else "stop", "message": message}
            content = {**whole, "choices": [choice]}
            if status != 200:
                content = {"error": {"message": f"refused {self.headers['Authorization']}"}}
            sent = answer if isinstance(answer, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
