"""Endpoints of OpenAI's protocol: who is asked and how, at what price, where, and what their failures mean.

Address and key come from the environment, and a key is in no message: texts from outside lose every piece of it. The
library's own retries are off: what may be paid is sent by those who keep book of it (:mod:`w2s.judge_client`,
:mod:`w2s.tuning_jobs`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx2
import pydantic

from w2s import judge_world
from w2s.errors import ConfigError, EnvironmentProblem, W2SError
from w2s.judge_prompts import CONTENT_FILTER
from w2s.judge_store import NANO

if TYPE_CHECKING:
    import openai

TOKENS_PER_PRICE = 1_000_000
# Tokens that a chat template can add to a message beyond its text.
MESSAGE_OVERHEAD = 64
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
# What stood between us and the model gave up; the model may have answered, and somebody paid.
MAYBE_PAID = {408, 502, 504}
# Not a matter of waiting, although the status is 429.
EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached"}
# Codes of a refusal of the prompt by the endpoint's filter: an answer of a kind, not a fault of the request.
FILTERED = {CONTENT_FILTER, "content_policy_violation"}
EXCERPT = 300
# Pieces of a secret of this length are recognised.
PIECE = 6
# A key from this length on is taken out of replies as well.
SECRET = 16
RESERVED = {"messages", "model", "n", "stream", "temperature", "top_p", "max_tokens", "max_completion_tokens"}
_ADVICE = {
    400: "settings that this model takes (model, max_tokens or max_completion_tokens, temperature, extra)",
    401: "a valid key in the environment variable that --key-variable names",
    403: "a key that may use this model",
    404: "the address and the model's name as the endpoint's provider writes them",
    429: "an account with credit: the endpoint says that its quota is used up",
}


class JudgeError(W2SError):
    """The endpoint does not answer, or not as it should."""


class Sampling(pydantic.BaseModel):
    """Settings of a judge behind an endpoint."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Annotated[str, pydantic.Field(min_length=1)]
    # None is not sent: there are models that take neither.
    temperature: Annotated[float, pydantic.Field(ge=0, le=2)] | None = 0.0
    top_p: Annotated[float, pydantic.Field(gt=0, le=1)] | None = 1.0
    max_tokens: Annotated[int, pydantic.Field(ge=1)] = 256
    # Newer models take the second name only.
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    # Sent, with the index of the sample mixed in, to endpoints that can repeat a sample.
    seed: Annotated[int, pydantic.Field(ge=0)] | None = None
    # Further fields of the request's body, as they are.
    extra: dict[str, Any] = {}

    @pydantic.field_validator("extra")
    @classmethod
    def _not_reserved(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(RESERVED & set(extra))
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot be set here")
        return extra


class WorldSettings(pydantic.BaseModel):
    """Settings of the demo world's judge, see :mod:`w2s.judge_world`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    world: dict[str, Any]
    noise: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Settings:
    """Who is asked and how.

    Attributes:
        sampling: model and sampling parameters.
        world: settings of the demo world if its judge is meant.
    """

    sampling: Sampling
    world: WorldSettings | None = None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check a mapping and turn it into settings.

        Raises:
            ConfigError: a key is unknown or missing, or a value makes no sense.
        """
        try:
            if "world" not in settings:
                return cls(Sampling.model_validate(dict(settings)))
            world = WorldSettings.model_validate(dict(settings))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"judge settings: {first['msg']}", where=f"key {'.'.join(map(str, first['loc']))}"
            ) from error
        return cls(Sampling(model=judge_world.MODEL, max_tokens=64, seed=0), world)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides a reply besides model, messages and sample."""
        told = self.sampling.model_dump(exclude={"model"})
        return told if self.world is None else told | self.world.model_dump()


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)

    def nano(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Cost in billionths of a dollar, rounded up."""
        amount = self.input * prompt_tokens + self.output * completion_tokens
        return math.ceil(amount * (NANO // TOKENS_PER_PRICE))


@dataclass(frozen=True)
class Limits:
    """How hard the endpoint is asked, and when to give up.

    Attributes:
        concurrency: requests at once.
        requests_per_minute: started requests; None: as many as there can be.
        budget: what all requests of the store may cost; None: no limit.
        attempts: how often a request is sent before the stage gives up.
        timeout: seconds without a sign of the endpoint.
        first_wait, longest_wait: seconds before the second attempt, and at most; the endpoint may ask for more.
        patience: seconds that the endpoint may ask for at most.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    budget: Decimal | None = None
    attempts: int = 6
    timeout: float = 120.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    patience: float = 600.0

    @property
    def budget_nano(self) -> int | None:
        """The budget in billionths of a dollar."""
        return None if self.budget is None else math.floor(self.budget * NANO)


@dataclass(frozen=True)
class Endpoint:
    """A client of the library, the secrets that no text may show, and a name for the run record."""

    client: openai.OpenAI
    secrets: tuple[str, ...]
    name: str

    def clean(self, text: str) -> str:
        """A text from outside on one line, shortened, without any piece of a secret."""
        start = " ".join(text[: 4 * EXCERPT].split())
        return redact(start, self.secrets)[:EXCERPT]

    def without_key(self, text: str) -> str:
        """A reply as it is, but for a whole key; pieces are left, since words of replies can be pieces of a key."""
        for secret in self.secrets:
            if len(secret) >= SECRET:
                text = text.replace(secret, "[secret]")
        return text


@dataclass(frozen=True)
class Failure:
    """Why a request came to nothing.

    Attributes:
        text: what the endpoint or the network says, without secrets.
        unclear: it may have been done, and paid, all the same.
        status: of HTTP; None: there was no response.
        code: of the protocol's error.
        final: to send it again is of no use.
        wait: seconds that the endpoint asks to wait.
        advice: what to change.
    """

    text: str
    unclear: bool
    status: int | None = None
    code: str | None = None
    final: bool = False
    wait: float = 0.0
    advice: str | None = None


def connect(settings: Settings, base_url_variable: str, key_variable: str, timeout: float) -> Endpoint:
    """The endpoint of ``settings``: the demo world's, or the one that the environment tells (see :func:`reach`)."""
    if settings.world is None:
        return reach(base_url_variable, key_variable, timeout)
    import openai

    _quiet()
    http = httpx2.Client(transport=judge_world.transport(settings.world.world, settings.world.noise))
    client = openai.OpenAI(api_key="none", base_url="http://demo.invalid/v1", max_retries=0, http_client=http)
    return Endpoint(client, (), judge_world.MODEL)


def reach(base_url_variable: str, key_variable: str, timeout: float) -> Endpoint:
    """The endpoint that the environment tells.

    Args:
        base_url_variable, key_variable: environment variables with the endpoint's address and key.
        timeout: seconds without a sign of the endpoint.

    Raises:
        EnvironmentProblem: a variable is not set.
        ConfigError: the address is none, or holds a secret.
    """
    import openai

    _quiet()
    address = _variable(base_url_variable, "the endpoint's address, such as https://<host>/v1")
    key = _variable(key_variable, "the endpoint's key; any text if it takes none")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("not the address of an endpoint", where=f"environment variable {base_url_variable}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the endpoint's address holds more than host and path, which could be a secret",
            where=f"environment variable {base_url_variable}",
            instead=f"the address alone, and the key in {key_variable}",
        )
    client = openai.OpenAI(api_key=key, base_url=address, max_retries=0, timeout=timeout)
    return Endpoint(client, (key,), parts.hostname)


def failure(
    error: openai.OpenAIError | httpx2.HTTPError, endpoint: Endpoint, patience: float = math.inf
) -> Failure:
    """What an error of the library means.

    Args:
        error: as raised.
        endpoint: that was asked.
        patience: seconds that the endpoint may ask to wait at most.
    """
    import openai

    if isinstance(error, openai.APIStatusError):
        status, wait = error.status_code, _retry_after(error.response.headers)
        told = endpoint.clean(f"HTTP {status}: {_told(error)}")
        code = error.code if isinstance(error.code, str) else None
        if status not in TRY_AGAIN or code in EXHAUSTED:
            return Failure(told, False, status, code, final=True, advice=_ADVICE.get(status))
        if wait > patience:
            advice = f"the same command in {wait:.0f} seconds: the endpoint asks to wait so long"
            return Failure(told, status in MAYBE_PAID, status, code, final=True, advice=advice)
        return Failure(told, status in MAYBE_PAID, status, code, wait=wait)
    cause = (
        isinstance(error, openai.APIConnectionError) and error.__cause__
    ) or error  # timeouts are among them
    unclear = not isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout))
    return Failure(endpoint.clean(f"{type(cause).__name__}: {cause}"), unclear)


def check_budget(prices: Prices, limits: Limits) -> None:
    """Raise ConfigError unless there are both prices and a budget, or neither."""
    priced = prices.input > 0 or prices.output > 0
    if priced and limits.budget is None:
        raise ConfigError("prices without a limit", instead="--budget-usd: what the store may cost in all")
    if limits.budget is not None and not (prices.input > 0 and prices.output > 0):
        raise ConfigError(
            "a budget without prices would limit nothing",
            instead="--price-input and --price-output, in US dollars per million tokens",
        )


def redact(text: str, secrets: Sequence[str]) -> str:
    """``text`` with every piece of a secret replaced, be it six characters long.

    Endpoints repeat a part of a wrong key. What is shorter is no secret, but what is set where no key is needed.
    """
    hidden = [False] * len(text)
    for secret in secrets:
        for piece in {secret[start : start + PIECE] for start in range(len(secret) - PIECE + 1)}:
            for match in re.finditer(f"(?={re.escape(piece)})", text):
                hidden[match.start() : match.start() + PIECE] = [True] * PIECE
    shown = "".join("\0" if hide else letter for letter, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", "[secret]", shown)


def _variable(name: str, meaning: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise EnvironmentProblem(
            f"the environment variable {name} is not set", instead=f"export {name}=<{meaning}>"
        )
    return value


def _quiet() -> None:
    """Silence the libraries: they tell of each request, and what they know of headers is nobody's business."""
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _told(error: openai.APIStatusError) -> str:
    """What the endpoint says of an error, if it says it in the usual form."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return body["message"]
    return json.dumps(body, default=str) if body is not None else "no explanation"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks to wait, by number or date; 0 if it does not."""
    text = headers.get("retry-after", "").strip()
    with contextlib.suppress(ValueError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
    with contextlib.suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return 0.0
