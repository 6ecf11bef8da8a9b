"""Where the protocol meets the machine: sockets, token files, clocks, dice.

The only part of this package that touches any of them. Nothing outside may import it, so that a
core that imports the protocol cannot reach a socket by accident.
"""
