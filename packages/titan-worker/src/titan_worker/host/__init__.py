"""The operating system as the worker needs it: processes, their identity, leftovers, load."""
