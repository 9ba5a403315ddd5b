"""A little business agent: it checks the invoices of a folder against the orders, and records a verdict on each.

holdfast dev examples/invoice_checker.py
holdfast run invoice-checker --input folder=examples/invoices --watch
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from holdfast import Agent, ToolContext, tool

ORDERS = Path(__file__).with_name("orders.csv")
LEDGER = Path(os.environ.get("INVOICE_LEDGER", ".holdfast/verdicts.jsonl"))
"""Where verdicts go; the order system's first answer fails while INVOICE_DEMO_OUTAGE is set."""


@tool(effect="pure")
def list_invoices(folder: str) -> list[str]:
    """List the invoice numbers in a folder.

    Args:
        folder: Path of the folder, as seen by the worker.
    """
    return sorted(path.stem for path in Path(folder).glob("INV-*.json"))


@tool(effect="pure")
def read_invoice(folder: str, number: str) -> dict[str, Any]:
    """Read one invoice: supplier, order number, lines, and the total that the supplier asks for.

    Args:
        folder: Path of the folder.
        number: The invoice's number, such as INV-1001.
    """
    if not number.replace("-", "").isalnum():
        raise ValueError(f"{number!r} is no invoice number")
    invoice: dict[str, Any] = json.loads((Path(folder) / f"{number}.json").read_text())
    return invoice


@tool(effect="pure", timeout_seconds=20)
async def find_order(number: str, context: ToolContext) -> dict[str, Any]:
    """Look an order up in the order system: its supplier and the total that was agreed.

    Args:
        number: The order's number, such as PO-7001.
    """
    await asyncio.sleep(0.2)
    if number == os.environ.get("INVOICE_DEMO_OUTAGE") and context.attempt == 1:
        raise ConnectionError("the order system answered 503")
    with ORDERS.open() as file:
        for order in csv.DictReader(file):
            if order["order"] == number:
                return {**order, "agreed_total": float(order["agreed_total"])}
    return {"order": number, "found": False}


@tool(timeout_seconds=20)
def record_verdict(
    invoice: str, verdict: Literal["approve", "reject"], reason: str, context: ToolContext
) -> dict[str, Any]:
    """Record what is to be done with an invoice; the ledger keeps one verdict for each idempotency key.

    Args:
        invoice: The invoice's number.
        verdict: approve or reject.
        reason: One sentence.
    """
    time.sleep(0.3)
    LEDGER.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in LEDGER.read_text().splitlines()] if LEDGER.exists() else []
    entry = {"key": context.idempotency_key, "invoice": invoice, "verdict": verdict, "reason": reason}
    repeated = any(each["key"] == entry["key"] for each in known)
    if not repeated:
        with LEDGER.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    return {"recorded": invoice, "verdict": verdict, "already_there": repeated}


invoice_checker = Agent(
    name="invoice-checker",
    description="Checks invoices against orders and records a verdict on each.",
    model=os.environ.get("INVOICE_MODEL", "openai/gpt-5-mini"),
    instructions=(
        "You check invoices. Read every invoice, add its lines up, look up its order, and record one verdict on each: "
        "approve it only if the lines add up to its total and the total is the agreed one. Never guess a number. "
        "Call tools for several invoices at once where you can. End with a short summary."
    ),
    goal="Check every invoice in the folder {{ folder }} against its order, and record your verdicts.",
    input_schema={
        "type": "object",
        "properties": {"folder": {"type": "string", "minLength": 1}},
        "required": ["folder"],
        "additionalProperties": False,
    },
    tools=[list_invoices, read_invoice, find_order, record_verdict],
)
