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

import hashlib
import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx2
import pydantic
from tqdm import tqdm

from w2s.endpoints import (
    FILTERED,
    MESSAGE_OVERHEAD,
    Endpoint,
    JudgeError,
    Limits,
    Prices,
    Settings,
    check_budget,
    failure,
)
from w2s.endpoints import connect as connect  # importable from here, too
from w2s.endpoints import redact as redact
from w2s.judge_prompts import CONTENT_FILTER, PARSERS, REFUSAL, MalformedReply, Template
from w2s.judge_store import (
    FAILED,
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

logger = logging.getLogger(__name__)

# Bytes of a usual token, for an estimate that is likely, not certain.
BYTES_PER_TOKEN = 4
# A count beyond this is none, and its cost would be no number that the store can hold.
MOST_TOKENS = 10**9
POLL_SECONDS = 0.1
Prompt = str | Sequence[Mapping[str, str]]


class _Stopped(Exception):
    """This thread's work is not wanted any more."""


@dataclass(frozen=True)
class Question:
    """One thing to ask: what it is about (for messages), the prompt and which sample of its replies is meant.

    The prompt is what the user says, or a conversation: messages with ``role`` and ``content``.
    """

    name: str
    prompt: Prompt
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
        likely = sum(self.prices.nano(_bytes(q.prompt) // BYTES_PER_TOKEN, limit) for q in missing)
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
                    f"the endpoint gave no reply{tried}: {sent.outcome.error}",
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

    def _send(self, prompt: Prompt, sample: tuple[int, int]) -> _Sent:
        """Send one request and say what came of it. Raises nothing that the network or the endpoint can cause."""
        import openai

        started = time.monotonic()
        try:
            raw = self.endpoint.client.chat.completions.with_raw_response.create(
                **self._body(prompt, sample)
            ).http_response
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            told = failure(error, self.endpoint, self.limits.patience)
            seconds = time.monotonic() - started
            if told.code in FILTERED:
                return _Sent(self._withheld(seconds, told.status))
            status, cost = (UNCLEAR, None) if told.unclear else (FAILED, 0)
            outcome = Outcome(status, seconds, cost, error=told.text, http_status=told.status)
            return _Sent(outcome, told.final, told.wait, told.advice)
        return self._received(raw, started)

    def _withheld(self, seconds: float, http_status: int | None) -> Outcome:
        """The outcome where the endpoint's filter refuses the prompt: an empty reply that costs nothing."""
        return Outcome(
            REPLY,
            seconds,
            0,
            model=self.settings.sampling.model,
            text="",
            finish_reason=CONTENT_FILTER,
            prompt_tokens=0,
            completion_tokens=0,
            http_status=http_status,
        )

    def _received(self, raw: httpx2.Response, started: float) -> _Sent:
        """What a reply of the endpoint is worth: its text and cost, or that it is not of the protocol."""
        seconds = time.monotonic() - started
        try:
            message = _Completion.model_validate_json(raw.content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            what = f"{first['msg']} ({'.'.join(map(str, first['loc']))})" if first["loc"] else first["msg"]
            text = self.endpoint.clean(f"the reply is not of the protocol: {what}: {raw.text}")
            return _Sent(Outcome(UNCLEAR, seconds, error=text, http_status=raw.status_code))
        choice, usage = message.choices[0], message.usage
        refused = choice.message.refusal is not None and not choice.message.content
        cost = None if usage is None else self.prices.nano(usage.prompt_tokens, usage.completion_tokens)
        return _Sent(
            Outcome(
                REPLY,
                seconds,
                cost,
                model=self.endpoint.without_key(message.model),
                text=self.endpoint.without_key(
                    (choice.message.refusal if refused else choice.message.content) or ""
                ),
                finish_reason=REFUSAL if refused else choice.finish_reason or "",
                prompt_tokens=None if usage is None else usage.prompt_tokens,
                completion_tokens=None if usage is None else usage.completion_tokens,
                http_status=raw.status_code,
            )
        )

    def _body(self, prompt: Prompt, sample: tuple[int, int]) -> dict[str, Any]:
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

    def _worst_nano(self, prompt: Prompt) -> int:
        """The most that a request can cost: no tokenizer makes more tokens than there are bytes."""
        most = _bytes(prompt) + MESSAGE_OVERHEAD * len(_messages(prompt))
        return self.prices.nano(most, self.settings.sampling.max_tokens)

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
    prompt_tokens: Annotated[int, pydantic.Field(ge=0, le=MOST_TOKENS)]
    completion_tokens: Annotated[int, pydantic.Field(ge=0, le=MOST_TOKENS)]


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


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def _bytes(prompt: Prompt) -> int:
    return sum(len(message["content"].encode()) for message in _messages(prompt))
