"""The world: model calls, tool calls, look-ups; everything with a side effect."""
