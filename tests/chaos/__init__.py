"""Real faults against real processes: kills, freezes, cut wires, partitions, disks that fail."""
