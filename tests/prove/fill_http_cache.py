"""Put JSON-LD contexts into the validator's HTTP cache, so that it needs no network: <cache> <contexts.json>.

Run by the Python of the environment that has the validator. ``contexts.json`` holds, of the contexts of RO-Crate 1.1 (CC0)
and of workflow runs, the terms that our crates use: a term that is in neither is one that the validator does not know.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import requests
from requests_cache import CachedSession
from urllib3 import HTTPResponse


def main(cache: str, contexts: str) -> None:
    """Store each context as the answer to a request of its address."""
    session = CachedSession(cache_name=cache, backend="sqlite", expire_after=-1)
    for address, context in json.loads(Path(contexts).read_text(encoding="utf-8")).items():
        content = json.dumps(context).encode()
        response = requests.Response()
        response.status_code, response.url = 200, address
        response.headers["Content-Type"] = "application/ld+json"
        response.request = requests.Request("GET", address).prepare()
        response.raw = HTTPResponse(
            io.BytesIO(content), status=200, headers=dict(response.headers), preload_content=False
        )
        response._content = content
        session.cache.save_response(response)


if __name__ == "__main__":
    main(*sys.argv[1:])
