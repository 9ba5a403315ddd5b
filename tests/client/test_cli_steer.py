"""The commands that steer runs, as processes, against a worker process."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator

import pytest

from holdfast import Client
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.processes import holdfast, serving
from tests.support.terminal import Terminal

AGENTS = '''
from holdfast import Agent, ask_user, tool

@tool(requires_approval=True)
def pay(amount: int, to: str) -> str:
    """Pay."""
    return f"paid {amount} to {to}"

clerk = Agent(name="clerk", model="scripted-model", tools=[pay, ask_user])
'''


def _script(request: ChatRequest) -> Reply:
    asked, *numbers = request.first_text.split()
    done = list(request.tool_results.values())
    if asked == "pay" and not done:
        return call(*(("pay", {"amount": int(each), "to": "Bob"}) for each in numbers))
    if asked in ("ask", "both") and not done:
        return call(("ask_user", {"question": "Which colour?", "options": ["red", "blue"]}))
    if asked == "both" and len(done) == 1:
        return call(("pay", {"amount": 5, "to": "Bob"}))
    if asked == "hang" and request.last_text == "hang":
        return hang()
    return say(f"heard: {' | '.join(done)} {request.last_text}")


@pytest.fixture(scope="module")
def env(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A worker process, and the environment in which commands find it."""
    with serving(AGENTS, _script, address=address, folder=tmp_path_factory.mktemp("cli")) as told:
        yield told


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    with Client(env["TEMPORAL_ADDRESS"], task_queue=env["HOLDFAST_TASK_QUEUE"]) as made:
        yield made


def waiting(client: Client, message: str, number: int = 1) -> tuple[str, list[str]]:
    """Start a run, and return its id and those of what it waits for, once it is so many things."""
    run = client.runs.create("clerk", message=message)
    deadline = time.monotonic() + 30
    while len(found := client.runs.waiting_for(run.id)) != number:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return run.id, [str(each["id"]) for each in found]


def test_what_waits_is_listed_and_the_only_call_needs_no_id(env: dict[str, str], client: Client) -> None:
    run_id, [call_id] = waiting(client, "pay 5")
    listed = holdfast("runs", "waiting", run_id, env=env).stdout
    assert re.search(rf"approval +{call_id} +pay amount=5 to=Bob", listed)
    [told] = [json.loads(line) for line in holdfast("runs", "waiting", run_id, "--json", env=env).stdout.splitlines()]
    assert (told["kind"], told["id"], told["arguments"]) == ("approval", call_id, {"amount": 5, "to": "Bob"})
    done = holdfast("runs", "approve", run_id, "--arguments", '{"amount": 1, "to": "Eve"}', env=env)
    assert (done.returncode, done.stdout) == (0, f"approved {call_id}\n"), done.stderr
    assert "paid 1 to Eve" in client.runs.wait(run_id, timeout=30).final_text
    assert holdfast("runs", "waiting", run_id, "--json", env=env).stdout == ""


def test_one_of_several_calls_must_be_named(env: dict[str, str], client: Client) -> None:
    run_id, [first, second] = waiting(client, "pay 5 6", 2)
    done = holdfast("runs", "approve", run_id, env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{first} (pay amount=5 to=Bob), {second} (pay amount=6 to=Bob)" in done.stderr
    told = holdfast("runs", "deny", run_id, second, "--reason", "too much", "--json", env=env)
    assert json.loads(told.stdout) == {"run_id": run_id, "call_id": second, "decision": "deny"}
    [digest] = [str(each["digest"]) for each in client.runs.waiting_for(run_id)]
    assert holdfast("runs", "approve", run_id, first, env=env).returncode == 0
    ended = client.runs.wait(run_id, timeout=30)
    again = holdfast("runs", "approve", run_id, first, env=env)
    assert (again.returncode, again.stdout) == (0, f"approved {first}\n"), "the same command is the same decision"
    client.runs.approve(run_id, first, digest=digest)
    assert "paid 5 to Bob" in ended.final_text
    assert "too much" in ended.final_text


def test_a_question_is_answered_with_or_without_its_id(env: dict[str, str], client: Client) -> None:
    run_id, [question] = waiting(client, "ask")
    listed = holdfast("runs", "waiting", run_id, env=env).stdout
    assert "Which colour? (red / blue)" in listed
    assert holdfast("runs", "answer", run_id, question, "blue", env=env).stdout == f"answered {question}\n"
    assert "blue" in client.runs.wait(run_id, timeout=30).final_text
    run_id, [question] = waiting(client, "ask")
    told = holdfast("runs", "answer", run_id, "it is red", "--json", env=env)
    assert json.loads(told.stdout) == {"run_id": run_id, "question_id": question}
    assert "it is red" in client.runs.wait(run_id, timeout=30).final_text


def test_a_run_is_paused_resumed_interrupted_and_taken_up(env: dict[str, str], client: Client) -> None:
    run = client.runs.create("clerk", message="hang")
    assert holdfast("runs", "pause", run.id, "--reason", "lunch", env=env).stdout == "asked to pause\n"
    told = holdfast("runs", "resume", run.id, "--json", env=env)
    assert json.loads(told.stdout) == {"run_id": run.id, "asked": "resume"}
    assert holdfast("runs", "interrupt", run.id, env=env).stdout.startswith("asked to stop at once; it is ")
    assert client.runs.wait(run.id, timeout=30).status == "interrupted"
    assert holdfast("runs", "interrupt", run.id, env=env).stdout == "it had ended: interrupted\n"
    assert holdfast("runs", "cancel", run.id, env=env).stdout == "it had ended: interrupted\n"
    taken = holdfast("runs", "resume-run", run.id, "-m", "go on", "--watch", env=env)
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout.splitlines()[-2:] == ["heard:  go on", "completed · 2 steps · $0.0000"]
    assert "run_interrupted" not in taken.stdout, "only what is new is shown"
    again = holdfast("runs", "resume-run", run.id, "--json", env=env)
    assert json.loads(again.stdout)["status"] == "completed"


def test_a_run_is_forked_and_compared(env: dict[str, str], client: Client) -> None:
    origin = client.runs.create("clerk", message="Hello")
    client.runs.wait(origin.id, timeout=30)
    forked = holdfast("runs", "fork", origin.id, "--at-step", "1", "-m", "And more", "--watch", env=env)
    assert forked.returncode == 0, forked.stderr
    fork_id, *lines = forked.stdout.splitlines()
    assert lines[-2] == "heard:  And more"
    told = holdfast("runs", "diff", origin.id, fork_id, env=env)
    assert told.returncode == 0, told.stderr
    answer = told.stdout.splitlines()[-1].split()
    assert answer == ["answer", "heard:", "Hello", "≠", "heard:", "And", "more"]
    shown = json.loads(holdfast("runs", "diff", origin.id, fork_id, "--json", env=env).stdout)
    assert (shown["a"]["id"], shown["b"]["id"], shown["first_difference"]) == (origin.id, fork_id, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "nope"), "no run has the id 'nope'"),
        (("approve", "nope"), "no run has the id 'nope'"),
        (("waiting", "nope"), "no run has the id 'nope'"),
        (("fork", "nope", "--at-step", "1"), "no run has the id 'nope'"),
        (("diff", "nope", "nope"), "no run has the id 'nope'"),
        (("approve", "ENDED"), "waits for no approval"),
        (("answer", "ENDED", "x"), "waits for no answer"),
        (("answer", "ENDED", "a", "b", "c"), "in quotes"),
        (("approve", "ENDED", "x"), "has ended (completed)"),
        (("pause", "ENDED"), "has ended (completed)"),
        (("approve", "ENDED", "x", "--arguments", "[1]"), "must be one JSON object"),
        (("approve", "ENDED", "x", "--arguments", "{"), "are no JSON"),
        (("fork", "ENDED"), "nothing new to do"),
        (("fork", "ENDED", "--at-step", "7"), "has the steps 1 to 1, not 7"),
        (("watch", "ENDED", "--interactive"), "no terminal"),
        (("resume-run", "ENDED", "--interactive"), "no terminal"),
        (("fork", "ENDED", "-m", "x", "--interactive"), "no terminal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_done_is_one_line_and_exit_code_2(
    env: dict[str, str], client: Client, arguments: tuple[str, ...], said: str
) -> None:
    run = client.runs.create("clerk", message="Hello", idempotency_key="cli-steer-ended")
    client.runs.wait(run.id, timeout=30)
    done = holdfast("runs", *(run.id if each == "ENDED" else each for each in arguments), env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr


def test_interactive_and_json_do_not_go_together(env: dict[str, str]) -> None:
    done = holdfast("run", "clerk", "-m", "pay 5", "--interactive", "--json", env=env)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_whoever_watches_interactively_is_asked_and_answered_for(env: dict[str, str]) -> None:
    terminal = Terminal("run", "clerk", "-m", "both", "--interactive", env=env)
    terminal.expect("answer: ")
    assert "the run asks: Which colour?" in terminal.shown
    terminal.type("2")
    terminal.expect("dit its arguments: ")
    assert "approval wanted: pay" in terminal.shown
    terminal.type("e")
    terminal.expect("JSON object: ")
    terminal.type("{")
    terminal.expect("are no JSON")
    terminal.expect("dit its arguments: ")
    terminal.type("e")
    terminal.expect("JSON object: ")
    terminal.type("amount=7 to='Eve Lind'")
    terminal.expect("dit its arguments: ")
    terminal.type("y")
    terminal.expect("completed · 3 steps")
    assert terminal.close() == 0
    assert "blue" in terminal.shown
    assert "paid 7 to Eve Lind" in terminal.shown


def test_a_denial_at_the_terminal_tells_the_model_why_and_end_of_input_leaves_it(
    env: dict[str, str], client: Client
) -> None:
    run_id, _ = waiting(client, "pay 5 6", 2)
    terminal = Terminal("runs", "watch", run_id, "--interactive", env=env)
    terminal.expect("dit its arguments: ")
    terminal.type("n")
    terminal.expect("may be empty): ")
    terminal.type("far too much")
    terminal.expect("dit its arguments: ")
    os.write(terminal._end, b"\x04")
    terminal.expect("left to somebody else")
    holdfast("runs", "approve", run_id, env=env)
    terminal.expect("completed · 2 steps")
    assert terminal.close() == 0
    assert "far too much" in terminal.shown
    assert "paid 6 to Bob" in terminal.shown


@pytest.mark.parametrize("command", [("resume-run",), ("fork", "--at-step", "1")], ids=lambda value: value[0])
def test_whoever_takes_a_run_up_or_forks_it_may_be_asked_as_well(
    env: dict[str, str], client: Client, command: tuple[str, ...]
) -> None:
    run_id, _ = waiting(client, "pay 5")
    client.runs.interrupt(run_id)
    client.runs.wait(run_id, timeout=30)
    terminal = Terminal("runs", *command, run_id, "--interactive", env=env)
    terminal.expect("dit its arguments: ")
    terminal.type("y")
    terminal.expect("paid 5 to Bob")
    assert terminal.close() == 0
