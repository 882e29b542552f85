"""`python -m benchmarks NAME [ARGUMENTS]`; `python -m benchmarks NAME --help` tells which."""

import importlib
import sys

BENCHMARKS = ("turns", "paced", "session", "scaling", "takeover", "idle", "fleet", "growth", "streaming")
OTHERS = ("all", "compare", "plot", "pages")
NOT_RECORDED = ("streaming",)


def main() -> int:
    name, *arguments = sys.argv[1:] or [""]
    if name == "all":
        return max([_run(each, _known(each, arguments)) for each in BENCHMARKS])
    if name not in (*BENCHMARKS, *OTHERS):
        print(
            f"usage: python -m benchmarks {{{','.join((*BENCHMARKS, *OTHERS))}}} [ARGUMENTS]", file=sys.stderr
        )
        return 2
    return _run(name, arguments)


def _known(name: str, arguments: list[str]) -> list[str]:
    return [each for each in arguments if each != "--record" or name not in NOT_RECORDED]


def _run(name: str, arguments: list[str]) -> int:
    status: int = importlib.import_module(f"benchmarks.{name}").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
