"""The worker's pure core: inputs and the time in, records and effects out.

No clock, no dice, no files, no sockets. Shells call ``WorkerCore``; the simulator does the same.
"""
