"""Real faults against real processes: kills, freezes, cut wires, partitions, planted bugs."""
