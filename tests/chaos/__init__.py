"""The chaos suite: real workers and clients, faults by seed, and a judge that sees what users see.

`python -m tests.chaos SECONDS SEED`. Processes write down what callers heard and what tools did, a JSON line
an observation, in a directory for each session; `checker` reads those and the stored snapshots, nothing else.
"""
