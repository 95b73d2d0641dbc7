"""The judge's client: questions to any OpenAI-compatible endpoint, each paid once, within a budget.

A question's reply is taken from the store (:mod:`w2s.judge_store`) if it is there. Else the intent is recorded, the
request is sent, and what came of it is recorded; many questions at once, in threads.

- **Failures.** Rate limits (429), server errors, timeouts and cut or unreadable replies are tried again, after a
  jittered, exponentially growing wait or as long as the endpoint says (Retry-After), during which no thread sends.
  Other errors (400, 401, 403, 404, an exhausted quota) end the stage at once. The library's own retries are off:
  each request that may be paid has an intent of its own.
- **Malformed replies** are asked again, a bounded number of times, as another sample; then they are reported.
- **Budget.** Before each request, the most that it can cost is held against the cap of the store: as many prompt tokens
  as the messages have bytes, and all of ``max_tokens``.
- **Secrets.** The key is read from the environment. It is in no message: texts from outside lose every piece of it.
- **Interruption.** Requests under way are waited for and recorded, so that what is paid is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx2
import pydantic
from tqdm import tqdm

from w2s import judge_world
from w2s.errors import ConfigError, EnvironmentProblem, W2SError
from w2s.judge_prompts import PARSERS, REFUSAL, MalformedReply, Template
from w2s.judge_store import (
    FAILED,
    NANO,
    REPLY,
    UNCLEAR,
    BudgetError,
    Busy,
    Intent,
    Outcome,
    Reply,
    Request,
    Store,
    canonical,
    dollars,
    request_key,
)

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

# Tokens that a chat template can add to a message beyond its text.
MESSAGE_OVERHEAD = 64
# Bytes of a usual token, for an estimate that is likely, not certain.
BYTES_PER_TOKEN = 4
TOKENS_PER_PRICE = 1_000_000
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
# What stood between us and the model gave up; the model may have answered, and somebody paid.
MAYBE_PAID = {408, 502, 504}
# Not a matter of waiting, although the status is 429.
EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached"}
EXCERPT = 300
POLL_SECONDS = 0.1
# Pieces of a secret of this length are recognised.
PIECE = 6
# A key from this length on is taken out of replies as well.
SECRET = 16
RESERVED = {"messages", "model", "n", "stream", "temperature", "top_p", "max_tokens", "max_completion_tokens"}


class JudgeError(W2SError):
    """The endpoint does not answer, or not as it should."""


class _Stopped(Exception):
    """This thread's work is not wanted any more."""


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


@dataclass(frozen=True)
class Question:
    """One thing to ask: what it is about (for messages), the prompt and which sample of its replies is meant."""

    name: str
    prompt: str
    sample: int = 0


@dataclass(frozen=True)
class Answer:
    """What the judge said: the parsed value, None if all replies were malformed, and the replies that it took.

    ``status`` is "ok" or why the last reply is malformed; ``replies`` are in the order in which they were asked for.
    """

    value: Any
    status: str
    replies: tuple[Reply, ...]

    @property
    def key(self) -> str:
        """Key of the last reply in the store."""
        return self.replies[-1].key


@dataclass
class Counts:
    """What a run did: replies from the store and from the endpoint, tries that came to nothing, and what it cost."""

    from_store: int = 0
    asked: int = 0
    failed: int = 0
    unclear: int = 0
    cost_nano: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **numbers: int) -> None:
        """Add to the counters of these names."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)


def connect(settings: Settings, base_url_variable: str, key_variable: str, timeout: float) -> Endpoint:
    """The endpoint of ``settings``: the demo world's, or the one that the environment tells.

    Args:
        settings: of the judge.
        base_url_variable, key_variable: environment variables with the endpoint's address and key.
        timeout: seconds without a sign of the endpoint.

    Raises:
        EnvironmentProblem: a variable is not set.
        ConfigError: the address is none, or holds a secret.
    """
    import openai

    # They would tell of each request; what they know of headers and addresses is nobody's business.
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if settings.world is not None:
        http = httpx2.Client(transport=judge_world.transport(settings.world.world, settings.world.noise))
        client = openai.OpenAI(
            api_key="none", base_url="http://demo.invalid/v1", max_retries=0, http_client=http
        )
        return Endpoint(client, (), judge_world.MODEL)
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


class Judge:
    """A judge that can be asked.

    Args:
        settings: who and how.
        template: wording of the questions; says how replies are read.
        endpoint: where.
        store: of the replies.
        prices: of tokens; a budget needs them.
        limits: see :class:`Limits`.
        again: how often a malformed reply is asked for again.

    Raises:
        ConfigError: prices without a budget, or a budget without prices.
    """

    def __init__(
        self,
        settings: Settings,
        template: Template,
        endpoint: Endpoint,
        store: Store,
        prices: Prices,
        limits: Limits,
        again: int,
    ) -> None:
        check_budget(prices, limits)
        self.settings, self.template, self.endpoint = settings, template, endpoint
        self.store, self.prices, self.limits, self.again = store, prices, limits, again
        self.counts = Counts()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._pace = _Pace(limits.requests_per_minute, self._stopping)

    def ask(self, questions: Sequence[Question], progress: bool = False) -> list[Answer]:
        """Answers to all questions, in their order.

        Raises:
            JudgeError: the endpoint refuses, or answers one question in none of the attempts.
            BudgetError: the rest could exceed the budget.
        """
        self._announce(questions)
        answers: list[Answer | None] = [None] * len(questions)
        with ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="judge") as pool:
            try:
                places = {pool.submit(self._work, question): n for n, question in enumerate(questions)}
                with tqdm(total=len(questions), unit="question", disable=not progress, mininterval=1) as bar:
                    for done in as_completed(places):
                        answers[places[done]] = done.result()
                        bar.update()
            except BaseException as error:
                # Requests under way end by themselves, and their replies are recorded; no other is sent.
                self._stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, _Stopped) and self._failure is not None:
                    raise self._failure from None
                raise
        found = [answer for answer in answers if answer is not None]
        assert len(found) == len(questions)
        return found

    def _announce(self, questions: Sequence[Question]) -> None:
        """Say what is in the store already, what was lost, and what the rest will cost."""
        missing = [q for q in questions if self.store.find(self._request(q, 0).key) is None]
        most = sum(self._worst_nano(q.prompt) for q in missing)
        limit = self.settings.sampling.max_tokens
        likely = sum(self.prices.nano(len(q.prompt.encode()) // BYTES_PER_TOKEN, limit) for q in missing)
        logger.info(
            "%d questions, %d answered in the store; the others will cost about %s and at most %s",
            len(questions),
            len(questions) - len(missing),
            dollars(likely),
            dollars(most),
        )
        lost = self.store.lost()
        if lost.requests:
            logger.warning(
                "%d requests of interrupted runs may have been paid without a record (at most %s)",
                lost.requests,
                dollars(lost.worst_nano),
            )

    def _work(self, question: Question) -> Answer:
        """A thread's work on one question. What ends it ends the others, before they send anything more."""
        if self._stopping.is_set():
            raise _Stopped
        try:
            return self._answer(question)
        except _Stopped:
            raise
        except BaseException as error:
            self._failure = self._failure or error
            self._stopping.set()
            raise

    def _answer(self, question: Question) -> Answer:
        """The answer to one question; malformed replies are asked for again as another sample."""
        replies = []
        status = ""
        for again in range(self.again + 1):
            reply = self._reply(question, self._request(question, again))
            replies.append(reply)
            try:
                value = PARSERS[self.template.form](reply.text, reply.finish_reason)
            except MalformedReply as error:
                status = error.what
            else:
                return Answer(value, "ok", tuple(replies))
        return Answer(None, status, tuple(replies))

    def _reply(self, question: Question, request: Request) -> Reply:
        """A reply from the store or, as often as it takes and is allowed, from the endpoint."""
        found = self.store.find(request.key)
        if found is not None:
            self.counts.add(from_store=1)
            return found
        worst = self._worst_nano(question.prompt)
        for attempt in range(1, self.limits.attempts + 1):
            intent = self._intent(request, worst)
            if isinstance(intent, Reply):
                self.counts.add(from_store=1)
                return intent
            sent = self._send(question.prompt, request.sample)
            reply = self.store.settle(intent, request.key, sent.outcome)
            cost = worst if sent.outcome.cost_nano is None else sent.outcome.cost_nano
            self.counts.add(cost_nano=cost, **{_COUNTER[sent.outcome.status]: 1})
            self._check_cost(cost, worst)
            if reply is not None:
                return reply
            if sent.final or attempt == self.limits.attempts:
                tried = "" if sent.final else f" in {attempt} attempts"
                raise JudgeError(
                    f"the judge gave no reply{tried}: {sent.outcome.error}",
                    where=f"{question.name}, endpoint {self.endpoint.name}",
                    instead=sent.advice or "the same command later: what was answered is kept",
                )
            self._pause(sent.wait, attempt)
        raise AssertionError("at least one attempt is made")

    def _intent(self, request: Request, worst: int) -> Reply | Intent:
        """The permission to send, once the pace, the budget and other processes allow it; or a reply of theirs."""
        while True:
            self._pace.wait()
            lease = 4 * self.limits.timeout + 60
            claimed = self.store.claim(request, worst, lease, self.limits.budget_nano)
            if not isinstance(claimed, Busy):
                return claimed
            self._rest(POLL_SECONDS)

    def _send(self, prompt: str, sample: tuple[int, int]) -> _Sent:
        """Send one request and say what came of it. Raises nothing that the network or the endpoint can cause."""
        import openai

        started = time.monotonic()

        def outcome(status: str, error: str, **more: Any) -> Outcome:
            cost = 0 if status == FAILED else None
            return Outcome(status, time.monotonic() - started, cost, error=self._clean(error), **more)

        try:
            raw = self.endpoint.client.chat.completions.with_raw_response.create(
                **self._body(prompt, sample)
            ).http_response
        except openai.APIStatusError as error:
            status = error.status_code
            unclear = status in MAYBE_PAID
            told = outcome(
                UNCLEAR if unclear else FAILED, f"HTTP {status}: {_told(error)}", http_status=status
            )
            wait = _retry_after(error.response.headers)
            if status not in TRY_AGAIN or error.code in EXHAUSTED:
                return _Sent(told, final=True, advice=_advice(status))
            if wait > self.limits.patience:
                advice = f"the same command in {wait:.0f} seconds: the endpoint asks to wait so long"
                return _Sent(told, final=True, advice=advice)
            return _Sent(told, wait=wait)
        except openai.APIConnectionError as error:  # timeouts are among them
            cause = error.__cause__ or error
            status_ = FAILED if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)) else UNCLEAR
            return _Sent(outcome(status_, f"{type(cause).__name__}: {cause}"))
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            return _Sent(outcome(UNCLEAR, f"{type(error).__name__}: {error}"))
        return self._received(raw, started)

    def _received(self, raw: httpx2.Response, started: float) -> _Sent:
        """What a reply of the endpoint is worth: its text and cost, or that it is not of the protocol."""
        seconds = time.monotonic() - started
        try:
            message = _Completion.model_validate_json(raw.content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            what = f"{first['msg']} ({'.'.join(map(str, first['loc']))})" if first["loc"] else first["msg"]
            text = self._clean(f"the reply is not of the protocol: {what}: {raw.text}")
            return _Sent(Outcome(UNCLEAR, seconds, error=text, http_status=raw.status_code))
        choice, usage = message.choices[0], message.usage
        refused = choice.message.refusal is not None and not choice.message.content
        cost = None if usage is None else self.prices.nano(usage.prompt_tokens, usage.completion_tokens)
        return _Sent(
            Outcome(
                REPLY,
                seconds,
                cost,
                model=self._without_key(message.model),
                text=self._without_key((choice.message.refusal if refused else choice.message.content) or ""),
                finish_reason=REFUSAL if refused else choice.finish_reason or "",
                prompt_tokens=None if usage is None else usage.prompt_tokens,
                completion_tokens=None if usage is None else usage.completion_tokens,
                http_status=raw.status_code,
            )
        )

    def _body(self, prompt: str, sample: tuple[int, int]) -> dict[str, Any]:
        sampling = self.settings.sampling
        body: dict[str, Any] = {
            "model": sampling.model,
            "messages": _messages(prompt),
            sampling.limit: sampling.max_tokens,
        }
        for name in ("temperature", "top_p"):
            if getattr(sampling, name) is not None:
                body[name] = getattr(sampling, name)
        if sampling.seed is not None:
            digest = hashlib.sha256(canonical([sampling.seed, *sample]).encode()).digest()
            body["seed"] = int.from_bytes(digest[:4], "big") >> 1  # a positive number of 32 bits
        if sampling.extra:
            body["extra_body"] = sampling.extra
        return body

    def _request(self, question: Question, again: int) -> Request:
        model, parameters = self.settings.sampling.model, self.settings.parameters
        messages, sample = _messages(question.prompt), (question.sample, again)
        template = self.template
        return Request(
            request_key(model, parameters, messages, template.sha256, sample),
            model,
            parameters,
            hashlib.sha256(canonical(messages).encode()).hexdigest(),
            template.name,
            template.sha256,
            sample,
        )

    def _worst_nano(self, prompt: str) -> int:
        """The most that a request can cost: no tokenizer makes more tokens than there are bytes."""
        return self.prices.nano(len(prompt.encode()) + MESSAGE_OVERHEAD, self.settings.sampling.max_tokens)

    def _check_cost(self, cost: int, worst: int) -> None:
        if self.limits.budget is not None and cost > worst:
            raise BudgetError(
                f"the endpoint counts more tokens than the request can have: {dollars(cost)} instead of at most "
                f"{dollars(worst)}; the budget could not be kept",
                where=self.endpoint.name,
                instead="a larger max_tokens if the model thinks before it writes",
            )

    def _pause(self, told: float, attempt: int) -> None:
        """Wait before the next attempt: as the endpoint told, else exponentially longer, never in step."""
        if told:
            self._pace.hold(told)
        grown = min(self.limits.longest_wait, self.limits.first_wait * 2 ** (attempt - 1))
        self._rest(max(told, 0.0) + grown * random.uniform(0.5, 1.0))

    def _rest(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def _clean(self, text: str) -> str:
        """A text from outside on one line, shortened, without any piece of a secret."""
        start = " ".join(text[: 4 * EXCERPT].split())
        return redact(start, self.endpoint.secrets)[:EXCERPT]

    def _without_key(self, text: str) -> str:
        """A reply as it is, but for a whole key; pieces are left, since words of replies can be pieces of a key."""
        for secret in self.endpoint.secrets:
            if len(secret) >= SECRET:
                text = text.replace(secret, "[secret]")
        return text


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


_COUNTER = {REPLY: "asked", FAILED: "failed", UNCLEAR: "unclear"}


@dataclass(frozen=True)
class _Sent:
    """What came of a request, and whether and when to send it again."""

    outcome: Outcome
    final: bool = False
    wait: float = 0.0
    advice: str | None = None


class _Message(pydantic.BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(pydantic.BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(pydantic.BaseModel):
    prompt_tokens: Annotated[int, pydantic.Field(ge=0)]
    completion_tokens: Annotated[int, pydantic.Field(ge=0)]


class _Completion(pydantic.BaseModel):
    """What is read of a reply of the protocol."""

    model_config = pydantic.ConfigDict(strict=True)

    model: str
    choices: Annotated[list[_Choice], pydantic.Field(min_length=1)]
    usage: _Usage | None = None


class _Pace:
    """When the next request may start: evenly spaced, and not while the endpoint wants to be left alone."""

    def __init__(self, per_minute: float | None, stopping: threading.Event) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._stopping = stopping
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for this request's turn.

        Raises:
            _Stopped: no request is wanted any more.
        """
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._gap
        if self._stopping.wait(max(0.0, start - time.monotonic())):
            raise _Stopped

    def hold(self, seconds: float) -> None:
        """Let nobody start for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def _variable(name: str, meaning: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise EnvironmentProblem(
            f"the environment variable {name} is not set", instead=f"export {name}=<{meaning}>"
        )
    return value


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _told(error: openai.APIStatusError) -> str:
    """What the endpoint says of an error, if it says it in the usual form."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return body["message"]
    return json.dumps(body, default=str) if body is not None else "no explanation"


def _advice(status: int) -> str | None:
    return {
        400: "settings that this model takes (model, max_tokens or max_completion_tokens, temperature, extra)",
        401: "a valid key in the environment variable that --key-variable names",
        403: "a key that may use this model",
        404: "the address and the model's name as the endpoint's provider writes them",
        429: "an account with credit: the endpoint says that its quota is used up",
    }.get(status)


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
