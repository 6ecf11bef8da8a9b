"""The master's pure core: inputs and the time go in, events and effects come out.

No clock, no dice, no sockets, no files. Read ``state``, ``events`` and ``core`` first.
"""
