"""The deterministic simulator: a whole cluster in one thread, from one seed.

Real cores and real connections run over a virtual network, disk and clock. See
``docs/internals/simulation.md``.
"""
