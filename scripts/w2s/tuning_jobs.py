"""Tuning a model behind OpenAI's fine-tuning API (paper B tunes its students so): upload, submit, wait, exactly once.

What is submitted has a *key*: the SHA-256 of the base model, the hyper-parameters and seed that are sent, and the
records. The uploaded file's name and the job's metadata carry it, so that the endpoint itself can tell whether a job is
there. Before a job is submitted the book (:mod:`w2s.tuning_book`) is told and the endpoint is asked; so it is after
each attempt that may have gone through unheard. A job that was submitted is waited for by whoever runs the same command.

Of a reply only what is used is read, and that strictly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import httpx2
import pydantic

from w2s.endpoints import MESSAGE_OVERHEAD, Endpoint, Failure, Limits, Prices, failure
from w2s.errors import ConfigError, W2SError
from w2s.judge_store import NANO, canonical, dollars
from w2s.tuning_book import CREATED, CREATING, ENDED, REFUSED, Book

logger = logging.getLogger(__name__)
SUCCEEDED = "succeeded"
OVER = {SUCCEEDED, "failed", "cancelled"}
PURPOSE: Final = "fine-tune"
METADATA = "w2s"
PAGE = 100
# Events of a job that are kept.
TAIL = 20
LOOK_SECONDS = 5.0
SERVER_ERROR = 500


class TuningError(W2SError):
    """The endpoint does not tune, or not what it should."""


class Settings(pydantic.BaseModel):
    """What is tuned and how; None is not sent: the endpoint's default, as in the paper."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Annotated[str, pydantic.Field(min_length=1)]
    n_epochs: Annotated[int, pydantic.Field(ge=1)] | None = None
    batch_size: Annotated[int, pydantic.Field(ge=1)] | None = None
    learning_rate_multiplier: Annotated[float, pydantic.Field(gt=0)] | None = None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check a mapping and turn it into settings.

        Raises:
            ConfigError: a key is unknown or missing, or a value makes no sense.
        """
        try:
            return cls.model_validate(dict(settings))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = f"key {'.'.join(map(str, first['loc']))}"
            raise ConfigError(f"tuning settings: {first['msg']}", where=where) from error

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those that are sent."""
        return self.model_dump(exclude={"model"}, exclude_none=True)


@dataclass(frozen=True)
class Waiting:
    """How a job is waited for.

    Attributes:
        poll: seconds between two looks at it.
        settle: seconds after which a job that was submitted is in the endpoint's list, if there is one.
        jobs: how many may be submitted for the same records, those that failed included.
    """

    poll: float = 30.0
    settle: float = 60.0
    jobs: int = 1


class _Error(pydantic.BaseModel):
    message: str | None = None


class _Job(pydantic.BaseModel):
    id: Annotated[str, pydantic.Field(min_length=1)]
    status: str
    model: str
    training_file: str
    created_at: int = 0
    fine_tuned_model: str | None = None
    trained_tokens: Annotated[int, pydantic.Field(ge=0)] | None = None
    metadata: dict[str, str] | None = None
    error: _Error | None = None


class _File(pydantic.BaseModel):
    id: Annotated[str, pydantic.Field(min_length=1)]
    filename: str
    bytes: int


class _Event(pydantic.BaseModel):
    id: str
    level: str = ""
    message: str


Thing = TypeVar("Thing", _Job, _File, _Event)
Reply = TypeVar("Reply", bound=pydantic.BaseModel)


class _Page(pydantic.BaseModel):
    data: list[dict[str, Any]]
    has_more: bool = False


@dataclass(frozen=True)
class Records:
    """Training records in the endpoint's form: a line of JSON each, and the most tokens that an epoch can have."""

    content: bytes
    number: int
    tokens_at_most: int

    @classmethod
    def make(cls, conversations: Iterable[Sequence[Mapping[str, str]]]) -> Records:
        """Of conversations that end with what the assistant is to learn."""
        lines, tokens = [], 0
        for messages in conversations:
            lines.append(json.dumps({"messages": list(messages)}, ensure_ascii=False))
            tokens += sum(len(message["content"].encode()) + MESSAGE_OVERHEAD for message in messages)
        return cls("".join(f"{line}\n" for line in lines).encode(), len(lines), tokens)

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.content).hexdigest()


class Tuner:
    """Who submits jobs and waits for them.

    Args:
        endpoint: where.
        book: of the jobs.
        settings: what is tuned and how.
        seed: of the job; jobs that differ in it only are different jobs.
        price: US dollars per million trained tokens, as the input's price.
        epochs_at_most: that the endpoint makes if ``settings`` name none.
        limits, waiting: how hard the endpoint is asked, and how long.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        book: Book,
        settings: Settings,
        seed: int,
        price: Prices,
        epochs_at_most: int,
        limits: Limits,
        waiting: Waiting,
    ) -> None:
        self.endpoint, self.book, self.settings, self.seed = endpoint, book, settings, seed
        self.price, self.epochs_at_most = price, epochs_at_most
        self.limits, self.waiting = limits, waiting

    def tune(self, records: Records) -> dict[str, Any]:
        """Tune on these records, or find the job that already did.

        Returns:
            model (its name at the endpoint), base, base_told (by the endpoint), job, file, hyperparameters and seed (as
            sent), trained_tokens, cost_usd, records, records_sha256, key, events (the last ones, level and message).

        Raises:
            TuningError: the endpoint refuses, or the job failed.
            BudgetError: the job could exceed the budget. Nothing is submitted then.
        """
        key = self.key(records)
        with self.book.alone():
            number, name = self._submitted(key, records)
        job = self._ended(name)
        tokens = job.trained_tokens
        worst = self._worst_nano(records)
        spent = worst if tokens is None and job.status == SUCCEEDED else self.price.nano(tokens or 0, 0)
        if self.book.lines(key)[-1].step != ENDED:
            self.book.write(key, number, ENDED, job.id, spent)
        if spent > worst:
            logger.warning(
                "the job cost %s, more than the %s that it should at most", dollars(spent), dollars(worst)
            )
        self._check(job)
        return {
            "model": job.fine_tuned_model,
            "base": self.settings.model,
            "base_told": job.model,
            "job": job.id,
            "file": job.training_file,
            "hyperparameters": self.settings.hyperparameters,
            "seed": self.seed,
            "trained_tokens": tokens,
            "cost_usd": self.book.lines(key)[-1].nano / NANO,
            "records": records.number,
            "records_sha256": records.sha256,
            "key": key,
            "events": self._events(job.id),
        }

    def key(self, records: Records) -> str:
        """What decides which job is meant."""
        parts = [self.settings.model, self.settings.hyperparameters, self.seed, records.sha256]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    def _submitted(self, key: str, records: Records) -> tuple[int, str]:
        """Number and id of the key's job: one that the book knows, one that the endpoint knows, or a new one."""
        lines = self.book.lines(key)
        last = lines[-1] if lines else None
        number = last.number if last else 1
        if last and last.step == CREATED:
            return number, last.told
        if last and last.step == ENDED:
            job = self._ended(last.told)
            if job.status == SUCCEEDED or number >= self.waiting.jobs:
                return number, job.id
            number += 1
        sent_at = last.written_at if last and last.step == CREATING else None
        return number, self._found(key, number, records, sent_at) or self._create(key, number, records)

    def _create(self, key: str, number: int, records: Records) -> str:
        """Submit a job; what may have gone through unheard is looked for before it is submitted again."""
        file = self._file(key, records)
        for attempt in range(1, self.limits.attempts + 1):
            self.book.write(key, number, CREATING, file, self._worst_nano(records), self.limits.budget_nano)
            sent_at = time.time()
            told = self._once(_Job, lambda: self._jobs.create(**self._body(key, file)))
            if isinstance(told, _Job):
                self.book.write(key, number, CREATED, told.id, self._worst_nano(records))
                logger.info("job %s was submitted", told.id)
                return told.id
            if told.unclear or (told.status or 0) >= SERVER_ERROR:
                found = self._found(key, number, records, sent_at)
                if found:
                    return found
            self.book.write(key, number, REFUSED, told.text)
            self._give_up_or_pause("submitting a job", told, attempt)
        raise AssertionError("at least one attempt is made")

    def _found(self, key: str, number: int, records: Records, sent_at: float | None) -> str | None:
        """The id of a job of this key at the endpoint that the book does not know, which then knows it; None if none.

        Args:
            sent_at: when one may have been submitted: it can take ``waiting.settle`` seconds to be in the list.
        """
        known = {line.told for line in self.book.lines(key)}
        until = 0.0 if sent_at is None else sent_at + self.waiting.settle
        while True:
            files = {file.id for file in self._files(key, records)}
            jobs = [
                job
                for job in self._pages(_Job, self._jobs.list, metadata={METADATA: key})
                if job.id not in known and _belongs(job, key, files)
            ]
            if jobs:
                job = min(
                    jobs, key=lambda job: (job.status in OVER and job.status != SUCCEEDED, job.created_at)
                )
                self.book.write(key, number, CREATED, job.id, self._worst_nano(records))
                logger.info("job %s was submitted before; %d such jobs are there", job.id, len(jobs))
                return job.id
            if time.time() >= until:
                return None
            time.sleep(min(LOOK_SECONDS, max(0.01, until - time.time())))

    def _file(self, key: str, records: Records) -> str:
        """Id of the uploaded records; they are uploaded unless they are there."""
        for file in self._files(key, records):
            return file.id
        upload = (_file_name(key), records.content, "application/jsonl")
        files = self.endpoint.client.files.with_raw_response
        told = self._call(_File, "uploading the records", lambda: files.create(file=upload, purpose=PURPOSE))
        return told.id

    def _files(self, key: str, records: Records) -> list[_File]:
        listed = self._pages(_File, self.endpoint.client.files.with_raw_response.list, purpose=PURPOSE)
        name, size = _file_name(key), len(records.content)
        return [file for file in listed if file.filename == name and file.bytes == size]

    def _ended(self, name: str) -> _Job:
        """The job once it is over."""
        status = ""
        while True:
            job = self._call(_Job, f"asking for job {name}", lambda: self._jobs.retrieve(name))
            if job.status != status:
                status = job.status
                logger.info("job %s: %s", name, self.endpoint.clean(status))
            if status in OVER:
                return job
            time.sleep(self.waiting.poll)

    def _check(self, job: _Job) -> None:
        """Raise TuningError unless the job made a model from the right base."""
        base = self.settings.model
        if job.status != SUCCEEDED:
            said = (job.error and job.error.message) or "no explanation"
            raise TuningError(
                f"the job {job.status}: {self.endpoint.clean(said)}",
                where=f"job {job.id}, endpoint {self.endpoint.name}",
                instead="other records or settings; or a larger --jobs, to submit these once more",
            )
        # An endpoint may say which version of a base it took.
        if job.model != base and not job.model.startswith(f"{base}-"):
            raise TuningError(f"the endpoint tuned {job.model} instead of {base}", where=f"job {job.id}")
        if not job.fine_tuned_model:
            raise TuningError("the job succeeded without a model", where=f"job {job.id}")

    def _events(self, name: str) -> list[dict[str, str]]:
        """What the endpoint told of the job, the last of it, oldest first."""
        page = self._call(_Page, f"events of job {name}", lambda: self._jobs.list_events(name, limit=TAIL))
        events = [self._read(_Event, item) for item in page.data[:TAIL]]
        return [
            {"level": self.endpoint.clean(event.level), "message": self.endpoint.clean(event.message)}
            for event in reversed(events)
        ]

    def _body(self, key: str, file: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "training_file": file,
            "seed": self.seed,
            "suffix": f"w2s-{key[:12]}",
            "metadata": {METADATA: key},
        }
        if self.settings.hyperparameters:
            hyperparameters = {"hyperparameters": self.settings.hyperparameters}
            body["method"] = {"type": "supervised", "supervised": hyperparameters}
        return body

    def _worst_nano(self, records: Records) -> int:
        """The most that a job can cost: no tokenizer makes more tokens than there are bytes."""
        epochs = self.settings.n_epochs or self.epochs_at_most
        return self.price.nano(records.tokens_at_most * epochs, 0)

    @property
    def _jobs(self) -> Any:
        return self.endpoint.client.fine_tuning.jobs.with_raw_response

    def _pages(self, kind: type[Thing], listing: Callable[..., Any], **query: Any) -> Iterator[Thing]:
        """All things of a list, page by page."""
        after: dict[str, str] = {}
        while True:
            arguments = {"limit": PAGE, **after, **query}
            page = self._call(_Page, "asking for a list", lambda: listing(**arguments))  # noqa: B023
            things = [self._read(kind, item) for item in page.data]
            yield from things
            if not page.has_more or not things:
                return
            after = {"after": things[-1].id}

    def _call(self, kind: type[Reply], what: str, send: Callable[[], Any]) -> Reply:
        """The reply to a request that may be repeated.

        Raises:
            TuningError: the endpoint refuses, or answers in none of the attempts.
        """
        for attempt in range(1, self.limits.attempts + 1):
            told = self._once(kind, send)
            if not isinstance(told, Failure):
                return told
            self._give_up_or_pause(what, told, attempt)
        raise AssertionError("at least one attempt is made")

    def _once(self, kind: type[Reply], send: Callable[[], Any]) -> Reply | Failure:
        import openai

        try:
            return kind.model_validate_json(send().http_response.content)
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            return failure(error, self.endpoint, self.limits.patience)
        except pydantic.ValidationError as error:
            return Failure(
                f"the reply is not of the protocol: {self.endpoint.clean(_first(error))}", unclear=True
            )

    def _read(self, kind: type[Reply], item: Mapping[str, Any]) -> Reply:
        try:
            return kind.model_validate(item)
        except pydantic.ValidationError as error:
            said = self.endpoint.clean(_first(error))
            raise TuningError(f"the reply is not of the protocol: {said}", where=self.endpoint.name) from None

    def _give_up_or_pause(self, what: str, told: Failure, attempt: int) -> None:
        if told.final or attempt == self.limits.attempts:
            tried = "" if told.final else f" in {attempt} attempts"
            raise TuningError(
                f"{what} failed{tried}: {told.text}",
                where=f"endpoint {self.endpoint.name}",
                instead=told.advice
                or "the same command later: what was submitted is known and not submitted again",
            )
        grown = min(self.limits.longest_wait, self.limits.first_wait * 2 ** (attempt - 1))
        time.sleep(told.wait + grown * random.uniform(0.5, 1.0))


def _belongs(job: _Job, key: str, files: set[str]) -> bool:
    """By its metadata, or where an endpoint keeps none, by its file, which is of this key alone."""
    metadata = job.metadata or {}
    return metadata[METADATA] == key if METADATA in metadata else job.training_file in files


def _file_name(key: str) -> str:
    return f"w2s-{key[:32]}.jsonl"


def _first(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    return f"{first['msg']} ({'.'.join(map(str, first['loc']))})"
