"""What a run is asked for: the one JSON object that starts it, and those of its signals and updates."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from holdfast.agent import Agent, InteractionMode
from holdfast.bounds import REQUEST_MAX_BYTES, RUN_ID_MAX_BYTES, THREAD_ID_MAX_BYTES, check_depth, json_size
from holdfast.carried import Carried
from holdfast.content import Content, content_form
from holdfast.data import Data
from holdfast.errors import InputInvalid, field_errors
from holdfast.ids import check_id
from holdfast.subagents import Lineage

T = TypeVar("T", bound=Data)


class After(Data):
    """A closed link to go on from: its transcript, or the beginning of it."""

    run: str
    """Temporal's own run id of the link."""
    workflow_id: str | None = None
    """The run that the link belongs to; this run itself by default."""
    length: int | None = Field(default=None, ge=0)
    """So many messages are kept; all of them by default."""
    step: int | None = Field(default=None, ge=1)
    """What came before this step is kept, and the step is taken anew."""

    @field_validator("run", "workflow_id")
    @classmethod
    def _is_an_id(cls, value: str | None) -> str | None:
        return None if value is None else sound_id(value)


class UserMessage(Data):
    """The one argument of the signal `append_message`."""

    text: Content
    """What is said: a text, or OpenAI's content parts."""
    id: str | None = None
    """The same id twice counts once."""

    @model_validator(mode="before")
    @classmethod
    def _content_is_text(cls, given: Any) -> Any:
        if isinstance(given, dict) and "content" in given and "text" not in given:  # OpenAI's word for it
            return {("text" if name == "content" else name): each for name, each in given.items()}
        return given

    @field_validator("text")
    @classmethod
    def _is_bounded(cls, value: Content) -> Content:
        if not value:
            raise ValueError("there is nothing in it")
        bounded(content_form(value))
        return value

    @field_validator("id")
    @classmethod
    def _is_an_id(cls, value: str | None) -> str | None:
        return None if value is None else sound_id(value)

    @classmethod
    def read(cls, given: Any) -> UserMessage:
        """Read a message as it came over the wire; InputInvalid says what is wrong with it."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None


class RunRequest(Data):
    """The one argument of the workflow `AgentRun`."""

    agent: str | Agent
    """The name of an agent that the worker knows, or a whole one."""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    message: Content | None = None
    """The first user message, a text or OpenAI's content parts; with a goal, or an input alone, it follows them."""
    thread_id: str | None = None
    """The conversation that this run goes on with: runs of one thread are taken in order."""
    revision: str | None = None
    """The agent's revision that the caller means: the run is refused where the worker has another."""
    after: After | None = None
    """A closed link whose conversation this run goes on with."""
    append_message: UserMessage | None = None
    """Taken as if the signal of this name had come with the start: its id counts once."""
    interaction_mode: InteractionMode | None = None
    """Whether somebody is there to approve and to answer; the agent's own word by default."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    lineage: Lineage | None = None
    """What a run tells the subagents that it starts; nobody else may give it."""
    carried: Carried | None = None
    """What a link hands to the next one when a run continues as new; nobody else may give it."""

    @field_validator("agent", mode="before")
    @classmethod
    def _agent_is_named(cls, agent: Any) -> Any:
        if isinstance(agent, dict):
            try:
                return Agent.model_validate(agent)
            except ValidationError as error:
                raise InputInvalid(field_errors(error)) from None
        if not isinstance(agent, str | Agent) or not agent:
            raise ValueError("must be an agent's name, or an agent")
        return agent

    @field_validator("input", "metadata")
    @classmethod
    def _is_bounded(cls, value: Any) -> Any:
        return bounded(value)

    @field_validator("message")
    @classmethod
    def _is_bounded_content(cls, value: Content | None) -> Content | None:
        bounded(content_form(value))
        return value

    @field_validator("thread_id")
    @classmethod
    def _is_a_thread_id(cls, value: str | None) -> str | None:
        return None if value is None else sound_id(value, THREAD_ID_MAX_BYTES)

    @field_validator("agent", "revision")
    @classmethod
    def _is_an_id(cls, value: Any) -> Any:
        return sound_id(value) if isinstance(value, str) else value

    @classmethod
    def read(cls, given: Any) -> RunRequest:
        """Read a request as it came over the wire; InputInvalid says all that is wrong with it."""
        if not isinstance(given, dict):
            raise InputInvalid({"request": 'must be one JSON object, such as {"agent": "demo", "message": "Hello"}'})
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None


class Reason(Data):
    """The one argument of the signals `pause`, `resume` and `interrupt`; it may be left out."""

    reason: str | None = None

    @field_validator("reason")
    @classmethod
    def _is_bounded(cls, value: str | None) -> str | None:
        return None if value is None else str(bounded(value))

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read what came over the wire; InputInvalid says what is wrong with it."""
        return _read(cls, {} if given is None else given)


class Decision(Data):
    """The one argument of the update `decide`: what somebody says to a tool call that waits for approval."""

    call_id: str
    decision: Literal["approve", "deny"]
    arguments: dict[str, JsonValue] | None = None
    """Other arguments than the model's, to approve with; the tool checks them like any others."""
    reason: str | None = None
    """Told to the model when the call is denied."""
    digest: str | None = None
    """The `digest` that `waiting_for` showed: the call is refused where its arguments are others by now."""

    @field_validator("arguments", "reason", "call_id")
    @classmethod
    def _is_bounded(cls, value: Any) -> Any:
        return bounded(value)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.decision == "deny" and self.arguments is not None:
            raise ValueError("arguments come with an approval only")
        return self

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read a decision as it came over the wire; InputInvalid says what is wrong with it."""
        return _read(cls, given)


class Answer(Data):
    """The one argument of the update `answer`."""

    question_id: str
    text: str = Field(min_length=1)

    @field_validator("text", "question_id")
    @classmethod
    def _is_bounded(cls, value: str) -> str:
        return str(bounded(value))

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read an answer as it came over the wire; InputInvalid says what is wrong with it."""
        return _read(cls, given)


def _read(kind: type[T], given: Any) -> T:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InputInvalid(field_errors(error)) from None


def bounded(value: Any) -> Any:
    """Return a field's value; ValueError for one that is over 256 KB, or no JSON (NaN, a lone surrogate)."""
    try:
        check_depth(value)
        size = len(value.encode()) if isinstance(value, str) else json_size(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"can't be written as JSON: {error}") from None
    if size > REQUEST_MAX_BYTES:
        raise ValueError(f"has {size:,} bytes; at most {REQUEST_MAX_BYTES:,} are taken")
    return value


def sound_id(value: str, max_bytes: int = RUN_ID_MAX_BYTES) -> str:
    """Return a field's value; ValueError for one that is no sound id."""
    try:
        return check_id("id", value, max_bytes)
    except InputInvalid as error:
        raise ValueError(error.errors["id"]) from None
