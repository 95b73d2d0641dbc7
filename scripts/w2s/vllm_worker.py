"""What vLLM's own environment runs: prompts of token ids in, new token ids out, as lines of JSON.

Started by :mod:`w2s.backends` with another Python, so it needs nothing of ours and, until it is asked for answers,
nothing but the standard library. Standard input, to its end: a line with the settings of the engine and of the sampling,
then one per prompt with ``place``, ``prompt`` (token ids) and ``seed``. Standard output: a line per response as it
ends, with ``place``, ``new`` (token ids) and ``ended`` (by the end token, a stop text or a limit: vLLM's finish reason);
or one with ``missing``, why there is no vLLM. Whatever vLLM prints goes to standard error.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # this folder holds modules named as some of the standard library's
    sys.path.pop(0)

import json
import os
from collections.abc import Iterator
from typing import Any, TextIO


def answers(settings: dict[str, Any], prompts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The responses as they end.

    Args:
        settings: ``engine``, arguments of vLLM's engine, and ``sampling``, arguments of its SamplingParams.
        prompts: of each prompt ``place``, ``prompt`` and ``seed``.
    """
    from vllm import EngineArgs, LLMEngine, SamplingParams

    engine = LLMEngine.from_engine_args(EngineArgs(**settings["engine"]))
    for one in prompts:
        sampling = SamplingParams(seed=one["seed"], **settings["sampling"])
        engine.add_request(str(one["place"]), {"prompt_token_ids": one["prompt"]}, sampling)
    while engine.has_unfinished_requests():
        for request in engine.step():
            if request.finished:
                (found,) = request.outputs
                yield {
                    "place": int(request.request_id),
                    "new": list(found.token_ids),
                    "ended": found.finish_reason,
                }


def main() -> None:
    """Speak with the parent."""
    channel = own_output()
    settings, *prompts = map(json.loads, sys.stdin)
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        say(channel, {"missing": str(error)})
        return
    for answer in answers(settings, prompts):
        say(channel, answer)


def own_output() -> TextIO:
    """Standard output for us alone: what libraries print there goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def say(channel: TextIO, line: dict[str, Any]) -> None:
    """One line, at once."""
    channel.write(json.dumps(line) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
