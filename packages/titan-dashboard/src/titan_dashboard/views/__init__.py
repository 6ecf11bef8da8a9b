"""The pages: each module asks the master for what it shows, and decides nothing."""
