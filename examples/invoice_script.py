"""The offline model of the demo: plain code that plays the part of an LLM, from nothing but the messages it is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from holdfast.worker.scripted import ChatRequest, Reply, call, say

THINKING_SECONDS = 0.6


def reply(request: ChatRequest) -> Reply:
    """Answer as a model would: list, read, look up, record, sum up."""
    results = _results(request)
    folder = _folder(request)
    numbers: list[str] = next(iter(results.get("list_invoices", [])), [])
    invoices: list[dict[str, Any]] = results.get("read_invoice", [])
    orders = {each["order"]: each for each in results.get("find_order", []) if isinstance(each, dict)}
    recorded = results.get("record_verdict", [])
    if "list_invoices" not in results:
        answer = call(("list_invoices", {"folder": folder}))
    elif not invoices:
        answer = call(*(("read_invoice", {"folder": folder, "number": number}) for number in numbers))
    elif not orders:
        answer = call(*(("find_order", {"number": each["order"]}) for each in invoices))
    elif not recorded:
        answer = call(*(("record_verdict", _verdict(each, orders)) for each in invoices))
    else:
        answer = say(_summary(invoices, orders), pace=0.05)
    return replace(answer, delay=THINKING_SECONDS)


def _verdict(invoice: dict[str, Any], orders: dict[str, dict[str, Any]]) -> dict[str, str]:
    lines = round(sum(line["quantity"] * line["unit_price"] for line in invoice["lines"]), 2)
    agreed = orders.get(invoice["order"], {}).get("agreed_total")
    if agreed is None:
        verdict, reason = "reject", f"there is no order {invoice['order']}"
    elif lines != invoice["total"]:
        verdict, reason = "reject", f"the lines add up to {lines:.2f}, not to {invoice['total']:.2f}"
    elif invoice["total"] != agreed:
        verdict, reason = "reject", f"{invoice['total']:.2f} is asked for, {agreed:.2f} was agreed"
    else:
        verdict, reason = "approve", f"{agreed:.2f} was agreed and is asked for"
    return {"invoice": invoice["number"], "verdict": verdict, "reason": reason}


def _summary(invoices: list[dict[str, Any]], orders: dict[str, dict[str, Any]]) -> str:
    verdicts = [_verdict(each, orders) for each in invoices]
    approved = [each["invoice"] for each in verdicts if each["verdict"] == "approve"]
    rejected = [f"{each['invoice']}: {each['reason']}" for each in verdicts if each["verdict"] == "reject"]
    return f"Approved: {', '.join(approved)}. Rejected: {'; '.join(rejected)}."


def _results(request: ChatRequest) -> dict[str, list[Any]]:
    names = {
        wanted["id"]: wanted["function"]["name"]
        for message in request.messages
        for wanted in message.get("tool_calls") or ()
    }
    found: dict[str, list[Any]] = {}
    for message in request.messages:
        told = request.tool_results.get(message.get("tool_call_id", ""), "Error")
        if not told.startswith("Error"):
            found.setdefault(names[message["tool_call_id"]], []).append(json.loads(told))
    return found


def _folder(request: ChatRequest) -> str:
    prompt = next(message["content"] for message in request.messages if message["role"] == "user")
    return str(prompt.split("the folder ")[1].split(" against")[0])
