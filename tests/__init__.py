"""What spans packages: the simulator, real processes, the tree's own rules."""
