"""`holdfast runs pause | resume | interrupt | approve | deny | answer | waiting`."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.client.cli import ask, show
from holdfast.client.cli.app import AsJson, RunId, client, runs
from holdfast.errors import InputInvalid

CallId = Annotated[str | None, typer.Argument(help="The call's id; may be left out when one call waits.")]
Reason = Annotated[str | None, typer.Option(help="Why.")]


@runs.command("pause")
def pause_run(run_id: RunId, reason: Reason = None, json: AsJson = False) -> None:
    """Let a run start nothing more from its next step on, until it is resumed."""
    with client() as holdfast:
        holdfast.runs.pause(run_id, reason)
    _told(json, "asked to pause", run_id=run_id, asked="pause")


@runs.command("resume")
def resume_paused(run_id: RunId, reason: Reason = None, json: AsJson = False) -> None:
    """Let a paused run go on; see resume-run for one that has ended."""
    with client() as holdfast:
        holdfast.runs.resume(run_id, reason)
    _told(json, "asked to go on", run_id=run_id, asked="resume")


@runs.command("interrupt")
def interrupt_run(run_id: RunId, reason: Reason = None, json: AsJson = False) -> None:
    """End a run at once, in the middle of its model call; resume-run takes it up. What has ended stays as it is."""
    with client() as holdfast:
        ended = holdfast.runs.status(run_id).closed
        holdfast.runs.interrupt(run_id, reason)
        status = holdfast.runs.status(run_id).status
    if json:
        show.print_json({"run_id": run_id, "status": status})
    else:
        print(f"it had ended: {status}" if ended else f"asked to stop at once; it is {status}")


@runs.command("waiting")
def waiting_run(run_id: RunId, json: AsJson = False) -> None:
    """List what a run waits for: approvals, questions and timers."""
    with client() as holdfast:
        found = holdfast.runs.waiting_for(run_id)
    if not json:
        show.print_waiting(found)
        return
    for each in found:
        show.print_json(each)


@runs.command("approve")
def approve_call(
    run_id: RunId,
    call_id: CallId = None,
    arguments: Annotated[
        str | None, typer.Option(metavar="JSON", help="Other arguments than the model's, one JSON object.")
    ] = None,
    reason: Reason = None,
    json: AsJson = False,
) -> None:
    """Let a tool call be made that waits for approval."""
    given = None if arguments is None else ask.read_arguments(arguments)
    with client() as holdfast:
        if call_id is None:
            waiting = ask.only_one(holdfast, run_id, "approval")
            run, call, digest = waiting.get("run_id", run_id), waiting["id"], waiting.get("digest")
        else:
            run, call, digest = run_id, call_id, ask.digest_of(holdfast, run_id, call_id)
        holdfast.runs.approve(run, call, arguments=given, reason=reason, digest=digest)
    _told(json, f"approved {call}", run_id=run, call_id=call, decision="approve")


@runs.command("deny")
def deny_call(run_id: RunId, call_id: CallId = None, reason: Reason = None, json: AsJson = False) -> None:
    """Refuse a tool call that waits for approval; the model is told the reason."""
    with client() as holdfast:
        waiting = {"id": call_id} if call_id else ask.only_one(holdfast, run_id, "approval")
        run, call = waiting.get("run_id", run_id), waiting["id"]
        holdfast.runs.deny(run, call, reason=reason)
    _told(json, f"denied {call}", run_id=run, call_id=call, decision="deny")


@runs.command("answer")
def answer_question(
    run_id: RunId,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[QUESTION_ID] TEXT", help="The id may be left out when one question waits."),
    ],
    json: AsJson = False,
) -> None:
    """Answer a question that a run waits for."""
    if len(words) > 2:
        raise InputInvalid({"text": f"give a question's id and one text, in quotes, not {len(words)} words"})
    with client() as holdfast:
        waiting = {"id": words[0]} if len(words) == 2 else ask.only_one(holdfast, run_id, "answer")
        run, question = waiting.get("run_id", run_id), waiting["id"]
        holdfast.runs.answer(run, question, words[-1])
    _told(json, f"answered {question}", run_id=run, question_id=question)


def _told(json: bool, text: str, **fields: str) -> None:
    if json:
        show.print_json(fields)
    else:
        print(text)
