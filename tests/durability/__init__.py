"""Durability: processes are killed, and what was recorded is neither lost nor done again."""
