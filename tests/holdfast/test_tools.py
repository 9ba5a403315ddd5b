"""`@tool`: what becomes of a function's signature and docstring, and how arguments are checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from holdfast import DefinitionError, InputInvalid, Tool, ToolContext, ToolSpec, tool


class Line(BaseModel):
    """One line of an invoice."""

    title: str
    amount: float = Field(gt=0)


@tool
def book(
    account: str,
    lines: list[Line],
    currency: Literal["EUR", "USD"] = "EUR",
    note: str | None = None,
    *,
    context: ToolContext,
) -> str:
    """Book an invoice.

    Books it at once, and
    for good.

    Args:
        account: Which account,
            by its number.
        lines: What was bought.
        note (str): Anything else.

    Returns:
        The voucher's number.
    """
    return f"{account}:{len(lines)}:{currency}:{note}:{context.call_id}"


def test_bare_tool_takes_name_and_description_from_the_function() -> None:
    assert book.spec.name == book.__name__ == "book"
    assert book.spec.description == "Book an invoice.\n\nBooks it at once, and\nfor good."
    assert (book.spec.timeout_seconds, book.spec.effect, book.spec.max_attempts) == (60, "idempotent", 3)
    assert book.is_async is False


def test_the_schema_comes_from_the_signature_and_a_google_docstring() -> None:
    assert book.spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "account": {"type": "string", "description": "Which account,\nby its number."},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "description": "What was bought."},
            "currency": {"type": "string", "enum": ["EUR", "USD"], "default": "EUR"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "description": "Anything else."},
        },
        "required": ["account", "lines"],
        "$defs": {
            "Line": {
                "type": "object",
                "description": "One line of an invoice.",
                "properties": {
                    "title": {"type": "string"},
                    "amount": {"type": "number", "exclusiveMinimum": 0},
                },
                "required": ["title", "amount"],
            }
        },
    }


def test_options_override_what_the_function_says() -> None:
    @tool(name="book-it", description="", timeout_seconds=5, effect="once", max_attempts=1)
    def book_it(x: int) -> int:
        """Book."""
        return x

    assert book_it.spec == ToolSpec(
        name="book-it", timeout_seconds=5, effect="once", max_attempts=1, parameters=book_it.arguments.schema
    )


def test_calling_a_tool_calls_its_function() -> None:
    context = ToolContext(run_id="r", call_id="c")
    assert book("7", [], note="x", context=context) == "7:0:EUR:x:c"

    @tool
    async def later(x: int) -> int:
        return x + 1

    assert later.is_async
    assert asyncio.run(later(1)) == 2


def test_the_context_is_hidden_from_the_model_and_can_not_be_given_by_it() -> None:
    assert book.arguments.context_name == "context"
    assert "context" not in book.spec.parameters["properties"]
    with pytest.raises(InputInvalid) as refused:
        book.arguments.validate({"account": "7", "lines": [], "context": {"run_id": "other", "call_id": "x"}})
    assert list(refused.value.errors) == ["context"]


def test_only_one_parameter_can_be_the_context() -> None:
    with pytest.raises(DefinitionError, match="only one parameter can be a ToolContext"):

        @tool
        def greedy(one: ToolContext, two: ToolContext) -> None: ...


def test_valid_arguments_arrive_as_the_declared_types_and_defaults_stay_the_functions_own() -> None:
    valid = book.arguments.validate({"account": "7", "lines": [{"title": "Tea", "amount": 3}]})
    assert valid == {"account": "7", "lines": [Line(title="Tea", amount=3)]}
    assert book.arguments.validate({"account": "7", "lines": [], "note": None})["note"] is None


def test_wrong_arguments_are_told_field_by_field_all_at_once_and_without_their_values() -> None:
    with pytest.raises(InputInvalid) as refused:
        book.arguments.validate({"lines": [{"title": "secret-1", "amount": -1}], "currency": "secret-2", "acount": "7"})
    assert set(refused.value.errors) == {"account", "lines.0.amount", "currency", "acount"}
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("given", [None, [], "x", 3, {"argument_0": "7"}])
def test_what_is_no_object_of_arguments_is_refused(given: Any) -> None:
    with pytest.raises(InputInvalid):
        book.arguments.validate(given)


def _generator(x: int) -> Iterator[int]:
    yield x


async def _async_generator(x: int) -> Any:
    yield x


def _star(*xs: int) -> None: ...


def _stars(**xs: int) -> None: ...


def _positional(x: int, /) -> None: ...


def _untyped(x) -> None: ...  # type: ignore[no-untyped-def]


def _opaque(x: object, y: asyncio.Lock) -> None: ...


def _unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821


def _optional_context(x: ToolContext | None = None) -> None: ...


def _long_name(x: int) -> None: ...


_long_name.__name__ = "x" * 65


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_generator, "generator"),
        (_async_generator, "generator"),
        (_star, "'xs' must be one that can be named"),
        (_stars, "'xs' must be one that can be named"),
        (_positional, "'x' must be one that can be named"),
        (_untyped, "'x' needs a type"),
        (_opaque, "no JSON form"),
        (_unknown, "can't be read"),
        (_optional_context, "no JSON form"),
        (_long_name, "name"),
        (lambda: None, "name"),
    ],
)
def test_a_function_that_can_not_be_a_tool_is_told_when_it_is_defined(function: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        tool(function)


@pytest.mark.parametrize("name", ["", "two words", "a.b", "naïve", "x\n", "x" * 65, "a/b"])
def test_a_name_that_providers_refuse_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="name"):
        tool(name=name)(lambda: None)


@pytest.mark.parametrize("name", ["a", "lookup_invoice", "A-b_9", "x" * 64])
def test_a_name_of_letters_digits_dashes_and_underscores_is_taken(name: str) -> None:
    assert tool(name=name)(lambda: None).spec.name == name


@pytest.mark.parametrize("options", [{"timeout_seconds": 0}, {"effect": "twice"}, {"max_attempts": 0}], ids=str)
def test_an_option_out_of_bounds_is_told_when_the_tool_is_defined(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(options))):
        tool(**options)(lambda: None)


@pytest.mark.parametrize("field", ["timeout_seconds", "heartbeat_seconds", "queue_seconds"])
@pytest.mark.parametrize("seconds", [1e-9, 1e10, float("inf"), float("nan")])
def test_a_time_that_the_server_takes_for_none_or_that_no_clock_holds_is_refused(field: str, seconds: float) -> None:
    with pytest.raises(ValidationError, match=field):
        ToolSpec.model_validate({"name": "far", "task_queue": "far", field: seconds})


@pytest.mark.parametrize(
    "name",
    ["schema", "model_config", "model_fields", "_x", "__y", "title", "properties", "json", "copy", "self", "default"],
)
def test_a_parameter_may_have_any_name(name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def odd({name}: str) -> str:\n    return {name}", space)
    odd: Tool[..., str] = tool(space["odd"])
    assert odd.spec.parameters["properties"] == {name: {"type": "string"}}
    assert odd.spec.parameters["required"] == [name]
    valid = odd.arguments.validate({name: "told"})
    assert valid == {name: "told"}
    assert odd(**valid) == "told"


def test_titles_of_the_schema_go_and_fields_and_values_called_title_stay() -> None:
    class Book(BaseModel):
        title: str
        properties: dict[str, str]

    def shelve(title: str, made: dict[str, str] = {"title": "Mr"}) -> None: ...  # noqa: B006

    shelve.__annotations__["book"] = Book
    shelved = tool(shelve).spec.parameters["properties"]
    assert shelved["title"] == {"type": "string"}
    assert shelved["made"]["default"] == {"title": "Mr"}
    nested = _without_future(Book).spec.parameters["$defs"]["Book"]
    assert nested["properties"]["title"] == {"type": "string"}
    assert nested["properties"]["properties"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert "title" not in nested


def _without_future(kind: type[BaseModel]) -> Tool[..., Any]:
    def take(book: Any) -> None: ...

    take.__annotations__["book"] = kind
    return tool(take)


def test_a_parameters_own_description_and_bounds_reach_the_schema() -> None:
    @tool
    def pick(
        count: Annotated[int, Field(ge=1, le=9, description="How many.")],
        other: Annotated[int, Field(description="From the type.")] = 0,
    ) -> int:
        """Pick.

        Args:
            other: From the docstring.
        """
        return count + other

    properties = pick.spec.parameters["properties"]
    assert properties["count"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."}
    assert properties["other"]["description"] == "From the docstring."


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    @tool
    def now() -> str:
        return "now"

    assert now.spec.parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    assert now.arguments.validate({}) == {}


def test_a_context_outside_a_run_can_be_made_for_a_test_of_the_tool() -> None:
    context = ToolContext(run_id="r", call_id="c")
    context.heartbeat({"page": 1})
    assert context.cancelled is False
    beats: list[tuple[Any, ...]] = []
    live = ToolContext("r", "c", _beat=lambda *details: beats.append(details), _cancelled=lambda: True)
    live.heartbeat(1, 2)
    assert (beats, live.cancelled) == ([(1, 2)], True)


def test_a_spec_is_frozen_and_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        ToolSpec.model_validate({"name": "x", "requires": "approval"})
    with pytest.raises(ValidationError, match="frozen"):
        book.spec.name = "other"


def test_a_field_as_a_default_is_refused_since_the_function_would_receive_it() -> None:
    def wrong(number: int = Field(3, gt=1)) -> int:
        return number

    with pytest.raises(DefinitionError, match="Annotated"):
        tool(wrong)


def test_a_bound_that_another_worker_would_have_to_keep_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_concurrent is for functions of the worker"):
        ToolSpec(name="charge", task_queue="billing", max_concurrent=2)
