"""Asking the person at the terminal for what a run waits for."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from holdfast.client.cli import show
from holdfast.client.cli.app import parse_pairs
from holdfast.errors import DecisionRefused, HoldfastError, InputInvalid, RunClosed

if TYPE_CHECKING:
    from holdfast.client.sync import Client


def check_terminal(as_json: bool) -> None:
    """Raise InputInvalid where nobody can be asked."""
    if as_json:
        raise InputInvalid({"interactive": "asks on the terminal, so it does not go with --json"})
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputInvalid({"interactive": "there is no terminal to ask on: use 'holdfast runs approve' and 'answer'"})


class Asker:
    """Asks for each approval and question of a run once; end of input (Ctrl-D) leaves one to somebody else."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._asked: set[tuple[str, str]] = set()

    def ask(self) -> None:
        """Ask for all that the run waits for, and hand the answers on."""
        for wanted in self._client.runs.waiting_for(self._run_id):
            asked = (self._of(wanted), wanted["id"])
            if asked in self._asked or wanted["kind"] not in ("approval", "answer"):
                continue
            self._asked.add(asked)
            try:
                self._approval(wanted) if wanted["kind"] == "approval" else self._question(wanted)
            except EOFError:
                print("left to somebody else")
            except (DecisionRefused, RunClosed) as error:
                print(error)

    def _of(self, wanted: dict[str, Any]) -> str:
        """Return the run that waits: this one, or one of its subagents'."""
        return str(wanted.get("run_id", self._run_id))

    def _approval(self, wanted: dict[str, Any]) -> None:
        arguments, changed = wanted.get("arguments") or {}, False
        while True:
            print(f"approval wanted: {show.printable(str(wanted.get('tool_name')))}")
            print(show.printable(json.dumps(arguments, ensure_ascii=False, indent=2)))
            match input("make this call? [y]es, [n]o, [e]dit its arguments: ").strip().lower()[:1]:
                case "y":
                    given = arguments if changed else None
                    run_id, digest = self._of(wanted), wanted.get("digest")
                    self._client.runs.approve(run_id, wanted["id"], arguments=given, digest=digest)
                    return
                case "n":
                    reason = input("why not? (told to the model; may be empty): ").strip()
                    self._client.runs.deny(self._of(wanted), wanted["id"], reason=reason or None)
                    return
                case "e":
                    try:
                        arguments = _edited(arguments, input("key=value …, or a whole JSON object: "))
                        changed = True
                    except InputInvalid as error:
                        print(error)

    def _question(self, wanted: dict[str, Any]) -> None:
        print(f"the run asks: {show.printable(str(wanted.get('question')))}")
        options = [str(each) for each in wanted.get("options") or ()]
        for number, option in enumerate(options, 1):
            print(f"  {number}) {show.printable(option)}")
        text = ""
        while not text:
            text = input("answer: ").strip()
        if text.isdecimal() and 1 <= int(text) <= len(options):
            text = options[int(text) - 1]
        self._client.runs.answer(self._of(wanted), wanted["id"], text)


def only_one(client: Client, run_id: str, kind: str) -> dict[str, Any]:
    """Return the one approval or question that a run waits for; an error that lists them where there are several."""
    waiting = [each for each in client.runs.waiting_for(run_id) if each["kind"] == kind]
    word = "approval" if kind == "approval" else "question"
    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise HoldfastError(f"run {run_id!r} waits for no {'approval' if kind == 'approval' else 'answer'}")
    listed = ", ".join(f"{each['id']} ({show.wanted(each)})" for each in waiting)
    raise InputInvalid({word: f"run {run_id!r} waits for {len(waiting)}, name one: {listed}"})


def digest_of(client: Client, run_id: str, call_id: str) -> str | None:
    """Return what binds an approval to a call; of one that waits no more, what it was, and None for an unknown one."""
    for wanted in client.runs.waiting_for(run_id):
        if wanted["id"] == call_id:
            return wanted.get("digest")
    asked = [each.data for each in client.runs.get(run_id).logs if each.type == "approval_requested"]
    return next((each["digest"] for each in asked if each["call_id"] == call_id), None)


def _edited(arguments: dict[str, Any], text: str) -> dict[str, Any]:
    """Read new arguments: a JSON object is all of them, pairs replace those that they name."""
    if not text.lstrip().startswith("{"):
        try:
            return {**arguments, **parse_pairs(shlex.split(text))}
        except ValueError as error:
            raise InputInvalid({"arguments": str(error)}) from None
    return read_arguments(text)


def read_arguments(text: str) -> dict[str, Any]:
    """Read a tool's arguments; InputInvalid for what is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputInvalid({"arguments": f"are no JSON: {error}"}) from None
    if not isinstance(found, dict):
        raise InputInvalid({"arguments": "must be one JSON object"})
    return found
