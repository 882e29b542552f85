"""`python -m benchmarks NAME [ARGUMENTS]`; `python -m benchmarks NAME --help` tells which."""

import sys

from benchmarks import growth

BENCHMARKS = {"growth": growth.main}


def main() -> int:
    name, *arguments = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}} [ARGUMENTS]", file=sys.stderr)
        return 2
    return BENCHMARKS[name](arguments)


if __name__ == "__main__":
    sys.exit(main())
