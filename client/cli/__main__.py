"""`python -m holdfast.client.cli`: the same as the command `holdfast`."""

from holdfast.client.cli import main

main()
