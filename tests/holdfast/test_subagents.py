"""Subagents as words: how they are given, what the calling model sees, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from holdfast import Agent, DefinitionError, InputInvalid, Subagent, tool
from holdfast.ids import check_id, child_run_id
from holdfast.subagents import NESTED_MAX, check_words


@tool
def look(place: str) -> str:
    """Look somewhere."""
    return place


WRITER = Agent(name="the writer", model="m", description="Writes.", tools=[look])
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"of": {"$ref": "#/$defs/thing"}},
    "required": ["of"],
    "$defs": {"thing": {"type": "string"}},
}


@pytest.mark.parametrize(
    "given",
    [
        [WRITER],
        [Subagent(agent=WRITER)],
        [{"agent": WRITER.wire()}],
        [{"name": "the writer", "model": "m", "description": "Writes.", "tools": ["look"]}],
    ],
)
def test_a_subagent_is_given_whole_in_any_form(given: Any) -> None:
    agent = Agent(name="lead", model="m", subagents=given)
    [found] = agent.resolved({"look": look.spec}).called
    assert found == Subagent(agent=WRITER.resolved({"look": look.spec}))
    assert agent.function_names == ["the_writer"]


def test_a_name_means_what_the_worker_has_and_shows_what_that_says_of_itself() -> None:
    agent = Agent(name="lead", model="m", subagents=["the writer"])
    resolved = agent.resolved({}, {"the writer": WRITER.model_copy(update={"input_schema": SCHEMA})})
    [spec] = resolved.tool_specs
    assert (spec.name, spec.description, spec.subagent) == ("the_writer", "Writes.", "the writer")
    assert resolved.called[0].agent == "the writer"
    assert resolved.revision != agent.revision
    with pytest.raises(DefinitionError, match="agent 'lead': no subagent named 'the writer'"):
        agent.resolved({}, {})


def test_the_calling_model_reads_what_an_agent_says_of_its_input() -> None:
    told = WRITER.model_copy(update={"input_schema": SCHEMA, "input_description": "What to write of."})
    [whole] = Agent(name="lead", model="m", subagents=[told]).tool_specs
    [named] = Agent(name="lead", model="m", subagents=["the writer"]).resolved({}, {"the writer": told}).tool_specs
    assert whole.parameters["properties"]["input"]["description"] == "What to write of."
    assert named.parameters == whole.parameters


def test_the_calling_model_sees_a_message_and_where_there_is_a_schema_the_input() -> None:
    [plain] = Agent(name="lead", model="m", subagents=[WRITER]).tool_specs
    assert (list(plain.parameters["properties"]), plain.parameters["required"]) == (["message"], ["message"])
    with_input = WRITER.model_copy(update={"input_schema": SCHEMA})
    [spec] = Agent(name="lead", model="m", subagents=[with_input]).tool_specs
    assert spec.parameters["required"] == ["input"]
    assert spec.parameters["properties"]["input"]["properties"] == {"of": {"$ref": "#/$defs/thing"}}
    assert spec.parameters["$defs"] == {"thing": {"type": "string"}}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, {"message": "is missing"}),
        ({"message": 7}, {"message": "must be a text"}),
        ({"message": "x", "budget_usd": 9}, {"budget_usd": "is no argument"}),
    ],
)
def test_a_call_that_does_not_fit_is_refused_with_every_fields_message(
    arguments: dict[str, Any], wrong: dict[str, str]
) -> None:
    [spec] = Agent(name="lead", model="m", subagents=[WRITER]).tool_specs
    with pytest.raises(InputInvalid) as refused:
        check_words(spec.parameters, arguments)
    assert refused.value.errors == wrong


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"subagents": ["a", "a"]}, "two tools are named 'a'"),
        ({"subagents": ["look"], "tools": [look]}, "two tools are named 'look'"),
        ({"subagents": [Subagent(agent="a", name="b"), "b"]}, "two tools are named 'b'"),
        ({"subagents": [{"agent": "a", "name": "no name"}]}, "subagents.0"),
        ({"subagents": [3]}, "subagents.0"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_agent_is_made(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Agent(name="lead", model="m", **fields)


def test_agents_may_be_nested_so_deep_and_no_deeper() -> None:
    agent = Agent(name="a", model="m")
    for _ in range(NESTED_MAX):
        agent = Agent(name="a", model="m", subagents=[agent])
    with pytest.raises(ValidationError, match="nested more than 20 levels deep"):
        Agent(name="a", model="m", subagents=[agent])


def test_the_functions_of_subagents_are_its_callers_too_each_once() -> None:
    inner = Agent(name="inner", model="m", tools=[look])
    lead = Agent(name="lead", model="m", subagents=[inner, WRITER], tools=[look])
    assert lead.functions == [look]


@pytest.mark.parametrize("run_id", ["run", "r" * 255, "é" * 130, "a/../b", " odd "])
def test_the_run_id_of_a_subagent_is_sound_whatever_its_callers_is(run_id: str) -> None:
    made = child_run_id(run_id, "0010abcde")
    assert check_id("run_id", made) == made
    assert made.endswith(":0010abcde")
    assert made != child_run_id(run_id, "0010abcdf")
    assert made.startswith(f"{run_id}:") == (run_id == "run")
