"""Holdfast against a bare Temporal workflow, side by side in one run: `python -m bench`, or `make bench`."""
