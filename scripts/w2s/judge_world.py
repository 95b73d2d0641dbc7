"""A judge for the demo world: an endpoint inside this process that knows the exact reward.

It speaks the chat-completions protocol, so that the demo exercises all of the judge's client without a network. It
reads question and answers back out of the prompt, adds normal noise to their exact rewards (:func:`w2s.world.reward`)
and replies in the form that the template asks for. The noise is drawn from the prompt's digest and the request's
``seed``: the same request gets the same reply, another sample of it another one.

It is a program, not a language model. What it says of the demo's students is what their exact rewards say, blurred.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s import judge_prompts, world
from w2s.errors import ConfigError, W2SError

if TYPE_CHECKING:
    import httpx2

MODEL = "demo-world"
# Rewards lie between about -7 and 7; a score between 1 and 10 with a decimal.
_MIDDLE, _SLOPE, _LEAST, _MOST = 5.5, 0.6, 1.0, 10.0


def transport(settings: Mapping[str, Any], noise: float) -> httpx2.MockTransport:
    """The endpoint, as the transport of an HTTP client.

    Args:
        settings: of the demo world.
        noise: standard deviation of what is added to each reward; 0: none.

    Raises:
        ConfigError: the settings or the noise make no sense.
    """
    import httpx2

    world.Settings.read(settings)
    if not (math.isfinite(noise) and noise >= 0):
        raise ConfigError(f"noise {noise} of the demo world's judge", instead="a number of at least 0")

    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        try:
            answer = reply(body["messages"][-1]["content"], body["seed"], noise)
        except W2SError as error:
            return httpx2.Response(400, json={"error": {"message": str(error), "code": "not_of_this_world"}})
        return httpx2.Response(200, json=_completion(body, answer))

    return httpx2.MockTransport(handle)


def reply(prompt: str, seed: int, noise: float) -> str:
    """What the judge answers to a prompt that a template was filled in for.

    Raises:
        ConfigError: the prompt is made from no template.
        DataError: its question is none of the demo world.
    """
    found = judge_prompts.read_back(prompt)
    if found is None:
        raise ConfigError("the demo world's judge knows the templates of this project only")
    template, texts = found
    if template.form not in ("scores", "choice"):
        raise ConfigError(f"the demo world's judge compares, it does not rate ({template.name})")
    question = f"\n\n{texts['question']}"
    rewards = np.array([world.reward(question, texts[side])[0] for side in ("first", "second")])
    digest = hashlib.sha256(prompt.encode()).digest()
    rng = np.random.default_rng([int.from_bytes(digest[:8], "big"), seed])
    values = rewards + noise * rng.standard_normal(2)
    if template.form == "scores":
        first, second = np.clip(_MIDDLE + _SLOPE * values, _LEAST, _MOST)
        return f"{first:.1f} {second:.1f}\nThe scores are the exact rewards of the demo world, with noise."
    if values[0] == values[1]:
        return str(1 + rng.integers(2))
    return "1" if values[0] > values[1] else "2"


def _completion(body: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """A reply of the protocol; tokens are words, for want of a tokenizer."""
    prompt_tokens = sum(len(message["content"].split()) for message in body["messages"])
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(answer.split())}
    return {
        "id": "demo",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }
