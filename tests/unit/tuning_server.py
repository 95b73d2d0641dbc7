"""An HTTP server that speaks the fine-tuning API: files, jobs and their events, beside chat completions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from judge_server import Handler, Server

TOKENS = 1234


class TuningServer(Server):
    """A server in a thread. A job succeeds when it has been looked at ``looks`` times.

    Attributes:
        files, jobs: what was uploaded and submitted, by id.
        contents: of the files.
        ending: status that jobs end with; error: why they failed.
        base: that jobs are said to have, None: the one that was asked for.
        metadata: whether jobs keep it.
        faults_at: faults by place, see :meth:`fault`.
        late: how many more lists of jobs are empty.
        posts: paths of all POST requests.
    """

    def __init__(self, looks: int = 2) -> None:
        super().__init__(lambda body: f"I am {body['model']}.")
        self.looks = looks
        self.files: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.ending, self.error = "succeeded", "nothing"
        self.base: str | None = None
        self.metadata = True
        self.late = 0
        self.posts: list[str] = []
        self.page = 2
        self.faults_at: dict[str, list[Callable[[Handler], None]]] = {}

    def fault(self, method: str, path: str) -> Callable[[Handler], None] | None:
        """The next one of ``faults_at`` this place, such as "GET /v1/fine_tuning/jobs"."""
        place = re.sub(r"/ftjob-\d+", "/ID", f"{method} {urlsplit(path).path}")
        waiting = self.faults_at.get(place)
        return waiting.pop(0) if waiting else None

    def reply(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """The protocol."""
        parts = urlsplit(path)
        words = parts.path.removeprefix("/v1/").split("/")
        if words == ["chat", "completions"]:
            return super().reply(method, path, content)
        with self.lock:
            if method == "POST":
                self.posts.append(parts.path)
                return 200, self._upload(content) if words == ["files"] else self._submit(json.loads(content))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if words == ["files"]:
                return 200, self._list(list(self.files.values()), query)
            if words == ["fine_tuning", "jobs"]:
                self.late -= 1
                return 200, self._list([] if self.late >= 0 else list(self.jobs.values()), query)
            if words[-1] == "events":
                events = [{"id": f"ev-{n}", "level": "info", "message": f"Step {n}"} for n in (3, 2, 1)]
                return 200, {"object": "list", "data": events, "has_more": False}
            return 200, self._look(self.jobs[words[2]])

    def _list(self, things: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        ids = [thing["id"] for thing in things]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        shown = things[start : start + self.page]
        return {"object": "list", "data": shown, "has_more": start + self.page < len(things)}

    def _upload(self, content: bytes) -> dict[str, Any]:
        found = re.search(rb'filename="([^"]+)"\r\n[^\r]*\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
        assert found is not None
        name = f"file-{len(self.files)}"
        self.contents[name] = found[2]
        described = {"object": "file", "created_at": 1, "purpose": "fine-tune", "status": "processed"}
        self.files[name] = {"id": name, "filename": found[1].decode(), "bytes": len(found[2]), **described}
        return self.files[name]

    def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"ftjob-{len(self.jobs)}"
        self.jobs[name] = {
            "id": name,
            "object": "fine_tuning.job",
            "created_at": len(self.jobs),
            "status": "queued",
            "model": self.base or body["model"],
            "training_file": body["training_file"],
            "metadata": body["metadata"] if self.metadata else None,
            "fine_tuned_model": None,
            "trained_tokens": None,
            "error": None,
            "sent": body,
            "looked": 0,
        }
        return self.jobs[name]

    def _look(self, job: dict[str, Any]) -> dict[str, Any]:
        job["looked"] += 1
        if job["looked"] >= self.looks and job["status"] != self.ending:
            job["status"] = self.ending
            if self.ending == "succeeded":
                job["fine_tuned_model"] = f"ft:{job['model']}:{job['id']}"
                job["trained_tokens"] = TOKENS
            else:
                job["error"] = {"code": "bad", "message": self.error, "param": None}
        return job
