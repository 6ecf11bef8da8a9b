"""Where the master's events are kept, and what is read of finished runs."""
