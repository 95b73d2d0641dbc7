"""An HTTP server that speaks the chat-completions protocol, well or badly, for the tests of the judge's client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-51f0c2a97be84d63"


def completion(text: str | None, **changes: Any) -> dict[str, Any]:
    """A reply of the protocol: 100 tokens in, 10 out."""
    message = {"role": "assistant", "content": text} | changes.pop("message", {})
    choice = {"index": 0, "finish_reason": changes.pop("finish_reason", "stop"), "message": message}
    reply = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "judge-2026-01-01",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
    return reply | changes


class Server:
    """A server in a thread. A context manager.

    Args:
        answer: the text that a request's body is answered with.

    Attributes:
        faults: what happens to the next requests, in order, instead of an answer.
        requests: bodies of all requests.
        headers: headers of all requests, their names in lower case.
        answered: number of complete replies that were sent.
        together: the most requests that were there at once.
        moments: when each request came.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], str] = lambda _body: "7 4\nBecause.") -> None:
        self.answer = answer
        self.faults: list[Callable[[Handler], None]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.moments: list[float] = []
        self.answered = self.here = self.together = 0
        self.delay = 0.0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def fault(self, method: str, path: str) -> Callable[[Handler], None] | None:
        """What happens to a request instead of an answer; None: it is answered."""
        return self.faults.pop(0) if self.faults else None

    def reply(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Status and body of the response to a request; others speak more of the protocol."""
        reply = completion(self.answer(json.loads(content)))
        with self.lock:
            self.answered += 1
        return 200, reply

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: N802 (the name that the base class wants)
        """Answer, or fail as told."""
        self._serve()

    def do_GET(self) -> None:  # noqa: N802
        """The same."""
        self._serve()

    def _serve(self) -> None:
        owner: Server = self.server.owner  # type: ignore[attr-defined]
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with owner.lock:
            owner.requests.append(json.loads(self.content) if self.content[:1] == b"{" else {})
            owner.headers.append({name.lower(): value for name, value in self.headers.items()})
            owner.moments.append(time.monotonic())
            owner.here += 1
            owner.together = max(owner.together, owner.here)
            fault = owner.fault(self.command, self.path)
        try:
            time.sleep(owner.delay)
            if fault is not None:
                fault(self)
            else:
                self.send(*self.done())
        finally:
            with owner.lock:
                owner.here -= 1

    def done(self) -> tuple[int, str]:
        """Do what is asked; status and text of the response, still to be sent."""
        owner: Server = self.server.owner  # type: ignore[attr-defined]
        status, reply = owner.reply(self.command, self.path, self.content)
        return status, json.dumps(reply)

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response."""
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def status(code: int, message: str = "no", error_code: str | None = None, **headers: str) -> Callable:
    """A fault: an error of the protocol."""
    text = json.dumps({"error": {"message": message, "code": error_code}})
    return lambda handler: handler.send(code, text, {k.replace("_", "-"): v for k, v in headers.items()})


def body(text: str) -> Callable:
    """A fault: a success with another body than the protocol's."""
    return lambda handler: handler.send(200, text)


def slow(seconds: float) -> Callable:
    """A fault: nothing comes for a while."""

    def wait(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def cut(after: int) -> Callable:
    """A fault: the connection ends after so many bytes of the body; 0: before any response."""

    def drop(handler: Handler) -> None:
        handler.close_connection = True
        if after:
            content = json.dumps(completion("7 4")).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[:after])

    return drop


def unheard(seconds: float = 0.0) -> Callable:
    """A fault: what is asked is done, but the connection ends without a response."""

    def drop(handler: Handler) -> None:
        handler.done()
        time.sleep(seconds)
        handler.close_connection = True

    return drop


def torn() -> Callable:
    """A fault: what is asked is done, but the response's JSON ends in the middle."""

    def tear(handler: Handler) -> None:
        code, text = handler.done()
        handler.send(code, text[: len(text) // 2])

    return tear
