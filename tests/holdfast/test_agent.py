"""Agents: what is taken, what is refused, and what a revision means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast import Agent, DefinitionError, Limits, ModelSettings, ToolSpec, tool


@tool
def lookup(topic: str) -> str:
    """Look a topic up."""
    return topic


SPEC = ToolSpec(
    name="search", description="Search.", parameters={"type": "object", "properties": {"q": {"type": "string"}}}
)

LIMITS = st.builds(Limits, max_steps=st.integers(1, 10_000), max_tool_calls=st.integers(0, 10_000))
SETTINGS = st.builds(
    ModelSettings,
    stream=st.booleans(),
    temperature=st.none() | st.floats(0, 2),
    seed=st.none() | st.integers(),
    stop=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
AGENTS = st.builds(
    Agent,
    name=st.sampled_from(["a", "invoice clerk", "v1.2_x-y"]),
    model=st.sampled_from(["openai/gpt-5-mini", "x"]),
    description=st.text(max_size=20),
    instructions=st.text(max_size=20),
    goal=st.text(max_size=20),
    tools=st.lists(st.sampled_from([lookup, SPEC, "by_name"]), unique_by=id, max_size=3),
    model_settings=SETTINGS,
    limits=LIMITS,
    metadata=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)


def test_everything_but_name_and_model_has_a_default() -> None:
    agent = Agent(name="demo", model="m")
    assert agent.wire() == {"name": "demo", "model": "m"}
    assert agent.limits.model_dump() == {
        "max_steps": 50,
        "max_model_calls": 100,
        "max_tool_calls": 500,
        "max_parallel_tools": 16,
        "max_tool_calls_per_turn": 32,
        "max_subagent_depth": 3,
        "unknown_price": "refuse",
        "max_cost_usd": None,
        "max_active_seconds": None,
        "deadline_seconds": None,
    }
    assert agent.model_settings.stream is True
    with pytest.raises(ValidationError) as refused:
        Agent.model_validate({})
    assert {each["loc"] for each in refused.value.errors()} == {("name",), ("model",)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", "red"),
        ("limits", {"max_setps": 3}),
        ("limits", {"max_steps": 0}),
        ("limits", {"max_tool_calls": -1}),
        ("limits", {"max_parallel_tools": 33}),
        ("model_settings", {"api_key": "sk-1"}),
        ("model_settings", {"api_base": "http://elsewhere"}),
        ("model_settings", {"reasoning_effort": "enormous"}),
        ("model_settings", {"tool_choice": "maybe"}),
        ("model_settings", {"temperature": float("nan")}),
        ("tools", [{"name": "x", "effect": "twice"}]),
        ("tools", [{"name": "x", "max_attempts": 0}]),
        ("tools", [{"name": "two words"}]),
        ("tools", [{"name": "x" * 65}]),
        ("tools", "lookup"),
        ("tools", {"name": "x"}),
        ("tools", [3]),
        ("name", ""),
        ("name", " demo"),
        ("name", "demo\n"),
        ("name", "../demo"),
        ("name", "x" * 121),
        ("model", ""),
        ("instructions", "\ud800"),
        ("metadata", {"x": float("inf")}),
        ("metadata", {"x": "\ud800"}),
        ("input_schema", []),
    ],
)
def test_an_unknown_field_or_word_is_refused_when_the_agent_is_made(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Agent.model_validate({"name": "demo", "model": "m", field: value})


def test_an_agent_is_frozen() -> None:
    agent = Agent(name="demo", model="m")
    with pytest.raises(ValidationError, match="frozen"):
        agent.model = "other"


@given(AGENTS)
def test_a_round_trip_through_json_keeps_the_revision(agent: Agent) -> None:
    again = Agent.model_validate(json.loads(json.dumps(agent.wire())))
    assert again.revision == agent.revision
    assert again.wire() == agent.wire()
    assert len(agent.revision) == 12
    assert int(agent.revision, 16) >= 0


@given(AGENTS)
def test_the_revision_does_not_depend_on_field_order_or_on_defaults_spelt_out(agent: Agent) -> None:
    backwards = dict(reversed(agent.wire().items()))
    spelt_out = agent.model_dump(mode="json")
    assert Agent.model_validate(backwards).revision == agent.revision
    assert Agent.model_validate(spelt_out).revision == agent.revision


@pytest.mark.parametrize(
    "change",
    [
        {"name": "demo2"},
        {"model": "n"},
        {"description": "d"},
        {"instructions": "i"},
        {"goal": "g"},
        {"input_schema": {}},
        {"tools": []},
        {"tools": ["lookup"]},
        {"tools": [SPEC, lookup]},
        {"model_settings": ModelSettings(stream=False)},
        {"limits": Limits(max_steps=49)},
        {"metadata": {"x": None}},
    ],
    ids=lambda change: ",".join(change),
)
def test_the_revision_changes_with_any_field(change: dict[str, Any]) -> None:
    first: dict[str, Any] = {"name": "demo", "model": "m", "tools": [lookup]}
    assert Agent(**first).revision != Agent(**{**first, **change}).revision


def test_the_revision_changes_with_a_tools_schema_its_effect_and_its_description() -> None:
    def revision(**changed: Any) -> str:
        return Agent(name="demo", model="m", tools=[SPEC.model_copy(update=changed)]).revision

    optional = {"type": "object", "properties": {"q": {"type": ["string", "null"]}}}
    found = {revision(), revision(parameters=optional), revision(effect="once"), revision(description="Find.")}
    assert len(found) == 4


def test_a_bare_function_is_refused_by_its_name() -> None:
    def naked(x: int) -> int:
        return x

    with pytest.raises(ValidationError, match=r"'naked' is a bare function: put @tool on it"):
        Agent(name="demo", model="m", tools=[naked])  # type: ignore[list-item]


@pytest.mark.parametrize("twice", [[lookup, lookup], [lookup, "lookup"], ["x", ToolSpec(name="x")]], ids=str)
def test_two_tools_of_one_name_are_refused(twice: list[Any]) -> None:
    with pytest.raises(ValidationError, match="two tools are named"):
        Agent(name="demo", model="m", tools=twice)


def test_an_agent_over_256_kilobytes_is_refused_and_one_just_under_is_taken() -> None:
    room = 256 * 1024 - len('{"name":"demo","model":"m","instructions":""}')
    assert Agent(name="demo", model="m", instructions="x" * room).revision
    with pytest.raises(ValidationError, match="larger than 262,144 bytes"):
        Agent(name="demo", model="m", instructions="x" * (room + 1))
    with pytest.raises(ValidationError, match="larger than 262,144 bytes"):
        Agent(name="demo", model="m", instructions="é" * (room // 2 + 1))


def test_tools_are_kept_in_order_whatever_sequence_they_came_in() -> None:
    agent = Agent(name="demo", model="m", tools=(each for each in [SPEC, lookup, "last"]))  # type: ignore[arg-type]
    assert agent.tool_names == ["search", "lookup", "last"]
    assert agent.functions == [lookup]
    assert isinstance(agent.tools, tuple)


def test_a_resolved_agent_is_pure_data() -> None:
    agent = Agent(name="demo", model="m", tools=["search", lookup])
    resolved = agent.resolved({"search": SPEC, "lookup": lookup.spec})
    assert resolved.tools == (SPEC, lookup.spec)
    assert resolved.tool_specs == [SPEC, lookup.spec]
    assert Agent.model_validate(resolved.wire()) == resolved
    assert agent.tools == ("search", lookup)


def test_the_workers_word_on_a_tool_counts_and_not_the_callers() -> None:
    claimed = ToolSpec(name="search", effect="idempotent", max_attempts=100)
    known = ToolSpec(name="search", effect="once")
    agent = Agent(name="demo", model="m", tools=[claimed])
    assert agent.resolved({"search": known}).tools == (known,)
    with pytest.raises(DefinitionError, match="no tool named 'search'"):
        agent.resolved({})


def test_resolving_names_every_tool_that_is_missing() -> None:
    agent = Agent(name="demo", model="m", tools=["a", "search", "b"])
    with pytest.raises(DefinitionError, match="no tool named 'a', 'b'"):
        agent.resolved({"search": SPEC})


def test_only_what_the_provider_should_hear_is_sent_to_it() -> None:
    settings = ModelSettings(temperature=0, stop=("END",), timeout_seconds=5, max_attempts=1, stream=False)
    assert settings.request_options() == {"temperature": 0.0, "stop": ("END",)}
