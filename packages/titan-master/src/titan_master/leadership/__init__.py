"""Who may be the master: exactly one process at a time, decided outside the core."""
