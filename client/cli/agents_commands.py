"""`holdfast agents …`."""

from __future__ import annotations

from holdfast.client.cli import show
from holdfast.client.cli.app import AsJson, agents, client


@agents.command("list")
def list_agents(json: AsJson = False) -> None:
    """List the agents that a worker of the task queue knows by name."""
    with client() as holdfast:
        found = holdfast.agents.list()
    if json:
        for each in found:
            show.print_json(each)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("agent", "model", "tools", "revision", "description", box=None, pad_edge=False)
    for each in found:
        row = (each["name"], each["model"], ", ".join(each["tools"]), each["revision"], each["description"])
        table.add_row(*(Text(show.printable(each)) for each in row))
    show.console().print(table)
