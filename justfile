set positional-arguments

bin := justfile_directory() / ".venv/bin"

# pyright runs the copy of itself that its wheel brings, on the Node.js of a wheel, and asks nobody for news
export PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT := "1"
export PYRIGHT_PYTHON_GLOBAL_NODE := "0"
export PYRIGHT_PYTHON_IGNORE_WARNINGS := "1"

_list:
    @"{{just_executable()}}" --list --unsorted

# a streamed conversation on the terminal
quickstart: setup
    @"{{bin}}/python" examples/quickstart.py

# the tests; arguments go to pytest: `just test -k order`
test *ARGS: setup
    @"{{bin}}/python" -m pytest "$@"

# the producers of examples/producers in every language whose toolchain is here
test-producers *ARGS: setup
    @"{{bin}}/python" -m pytest tests/producers -m "producers or not producers" "$@"

# the image and its services in the Docker engine of DOCKER_HOST, else the usual one of this machine, else
# the one that the command ATTO_DOCKER_UP starts: it prints the variables to export
test-containers *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    if [ -z "${DOCKER_HOST:-}" ] && [ -n "${ATTO_DOCKER_UP:-}" ] && [ ! -S /var/run/docker.sock ]; then
        eval "$($ATTO_DOCKER_UP)"
    fi
    exec "{{bin}}/python" -m pytest tests/containers -m containers --timeout 600 "$@"

# faults for so many seconds, by seed, and a judge: `just chaos 60 1`; the last line is one JSON object
chaos SECONDS SEED *ARGS: setup
    @"{{bin}}/python" -m tests.chaos "$@"

# what things cost: `just bench turns` for a turn, `growth` for commits, `all` for everything (docs/performance.md)
bench *ARGS: setup
    @"{{bin}}/python" -m benchmarks "$@"

# everything that can be checked without running it
check: setup
    "{{bin}}/ruff" check
    "{{bin}}/ruff" format --check
    "{{bin}}/pyright"
    "{{bin}}/lint-imports"

# formats, and mends what can be mended
fmt: setup
    "{{bin}}/ruff" check --fix
    "{{bin}}/ruff" format

# writes the JSON Schemas of what travels
schemas: setup
    "{{bin}}/python" -m atto.protocol.schemas docs/schemas

# .venv with what the lock names and the three distributions of this tree; nothing to do if they are there
setup:
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    stamp=.venv/setup-stamp
    sources="requirements.lock pyproject.toml client/pyproject.toml workers/pyproject.toml"
    if [ -e $stamp ] && [ -z "$(find $sources -newer $stamp)" ]; then exit 0; fi
    [ -x .venv/bin/python ] || python3 -m venv .venv
    touch $stamp.new
    pip="{{bin}}/python -m pip install --quiet --disable-pip-version-check"
    # the lock is complete: without a resolver, a release of today changes nothing (pip 23 tries the newest
    # version of `name[extra]` first, and then misses its hash)
    $pip --no-deps --require-hashes -r requirements.lock
    $pip --no-deps --no-build-isolation -e . -e client -e workers
    "{{bin}}/python" -m pip check --quiet --disable-pip-version-check
    mv $stamp.new $stamp

# resolves the dependencies anew; `just lock --upgrade` to newer versions
lock *ARGS: setup
    "{{bin}}/uv" pip compile pyproject.toml client/pyproject.toml workers/pyproject.toml \
        --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
        --no-emit-package atto-agents --no-emit-package atto-client --no-emit-package atto-workers \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
        --output-file requirements.lock "$@"
    "{{bin}}/uv" pip compile --group image \
        --universal --python-version 3.11 --generate-hashes --constraint requirements.lock \
        --no-emit-package atto-agents --no-emit-package atto-client --no-emit-package atto-workers \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
        --output-file deploy/requirements.lock "$@"
    printf 'hatchling\nsetuptools\n' | "{{bin}}/uv" pip compile - \
        --universal --python-version 3.11 --generate-hashes --constraint requirements.lock \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
        --output-file deploy/build.lock "$@"
