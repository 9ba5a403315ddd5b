"""Secrets by handle: declared on a parameter, and known to nobody but the worker."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from holdfast import DefinitionError, InputInvalid, Secret, tool


@tool
def ask_crm(customer: int, token: Annotated[str, Secret("crm_token")]) -> str:
    """Ask the customer database.

    Args:
        customer: Its number.
        token: The key.
    """
    return f"{customer} with {token}"


def test_a_secret_is_no_parameter_that_the_model_sees() -> None:
    assert list(ask_crm.spec.parameters["properties"]) == ["customer"]
    assert ask_crm.spec.parameters["required"] == ["customer"]
    assert "token" not in str(ask_crm.spec.parameters)
    assert ask_crm.spec.secrets == ("crm_token",)
    assert ask_crm(1, token="mine") == "1 with mine"


def test_a_model_that_sends_it_is_refused() -> None:
    with pytest.raises(InputInvalid, match="token"):
        ask_crm.arguments.validate({"customer": 1, "token": "guessed"})


@pytest.mark.parametrize("handle", ["", "a b", "../key", "9lives", "x" * 101, None])
def test_a_handle_is_a_word(handle: Any) -> None:
    with pytest.raises(DefinitionError, match="handle"):
        Secret(handle)


def test_a_secret_is_a_text() -> None:
    def wrong(token: Annotated[int, Secret("crm_token")]) -> None:
        """Take a number."""

    with pytest.raises(DefinitionError, match="a secret is a str"):
        tool(wrong)
