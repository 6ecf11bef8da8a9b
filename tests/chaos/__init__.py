"""Faults made for real: processes killed, disks that fill, fail and lie, networks that break."""
