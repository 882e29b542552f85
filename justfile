set positional-arguments

bin := justfile_directory() / ".venv/bin"

# pyright runs the copy of itself that its wheel brings, on the Node.js of a wheel, and asks nobody for news
export PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT := "1"
export PYRIGHT_PYTHON_GLOBAL_NODE := "0"
export PYRIGHT_PYTHON_IGNORE_WARNINGS := "1"

_list:
    @"{{just_executable()}}" --list --unsorted

# a streamed conversation on the terminal; installs only what that needs
quickstart: (setup "quickstart")
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    if [ -n "${OPENAI_API_KEY:-}${OPENAI_BASE_URL:-}" ]; then "{{just_executable()}}" setup openai; fi
    exec "{{bin}}/python" examples/quickstart.py

# the tests, side by side on all cores; with arguments for pytest one after another: `just test -k order`
test *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    if [ $# -eq 0 ]; then
        echo "Running the tests: about 8 minutes on two cores"
        set -- -n auto --dist loadfile
    fi
    exec "{{bin}}/python" -m pytest "$@"

# the core tests on another Python, if it is installed: `just test-on 3.13`
test-on VERSION *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    export PATH="{{bin}}:$PATH"
    shift
    environment=.cache/python-{{VERSION}}
    if [ ! -x $environment/bin/python ]; then
        for python in python{{VERSION}} "${PYENV_ROOT:-$HOME/.pyenv}/versions/{{VERSION}}".*/bin/python; do
            if "$python" -c "" 2>/dev/null; then break; fi
            python=
        done
        if [ -z "$python" ]; then echo "Python {{VERSION}} is not installed here"; exit 0; fi
        uv venv --quiet --python "$("$python" -c "import sys; print(sys.executable)")" $environment
    fi
    $environment/bin/python requirements/install.py dev
    set -- -o cache_dir=$environment/pytest tests/protocol tests/agents tests/aio tests/broker tests/client \
        tests/workers tests/stores tests/integration/test_main_job.py tests/integration/test_crashes.py \
        tests/integration/test_cancelling.py tests/integration/test_user_code.py "$@"
    $environment/bin/python -m pytest -n auto --dist loadfile "$@" ||
        $environment/bin/python -m pytest --last-failed --last-failed-no-failures none "$@"

# the documentation site, built without a warning
docs: setup (setup "docs")
    "{{bin}}/python" -m pytest -m docs
    @NO_MKDOCS_2_WARNING=1 "{{bin}}/mkdocs" build --quiet --strict --site-dir .cache/site
    @echo "open .cache/site/index.html"

# the producers of examples/producers in every language whose toolchain is here
test-producers *ARGS: setup
    @"{{bin}}/python" -m pytest tests/producers -m "producers or not producers" "$@"

# what stands at the door, on the oldest and the newest nats-py that is allowed: each in a directory that goes again
test-nats-py *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    for version in "==2.12.0" "<2.17"; do
        target=$(mktemp -d)
        trap 'rm -rf "$target"' EXIT
        "{{bin}}/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$target" "nats-py$version"
        PYTHONPATH="$target" "{{bin}}/python" -c "import nats; print(nats.__file__)"
        PYTHONPATH="$target" "{{bin}}/python" -m pytest tests/broker/test_wire.py tests/broker/test_reading.py tests/broker/test_nats_internals.py \
            tests/broker/test_connection.py tests/broker/test_hearing.py tests/integration/test_hostile_bytes.py \
            tests/integration/test_closed_for_good.py "$@"
        rm -rf "$target"
    done

# the image and its services in the Docker engine of DOCKER_HOST, else the usual one of this machine, else
# the one that the command ATTO_DOCKER_UP starts: it prints the variables to export
test-containers *ARGS: setup (setup "containers")
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

# what things cost: `just bench turns` for a turn, `compare TREE` beside another tree (docs/performance.md)
bench *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    if [ "${1:-}" = plot ]; then "{{just_executable()}}" setup bench; fi
    exec "{{bin}}/python" -m benchmarks "$@"

# a real model, SmolLM2 served by llama.cpp on this machine, before each adapter that its server speaks
test-local *ARGS: setup (setup "local")
    @"{{bin}}/python" -m pytest tests/models/test_local_model.py -m local "$@"

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

# .venv with the packages of a lock of requirements/ and this tree; does nothing if they are there
setup GROUP="dev":
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    exec .venv/bin/python requirements/install.py "{{GROUP}}"

# resolves the dependencies anew; `just lock --upgrade` to newer versions
lock *ARGS: setup
    #!/bin/sh
    set -eu
    cd "{{justfile_directory()}}"
    compile() {
        "{{bin}}/uv" pip compile --universal --python-version 3.11 --generate-hashes --quiet \
            --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
            --no-emit-package atto-agents --no-emit-package atto-client --no-emit-package atto-workers "$@"
    }
    compile --group dev --output-file requirements/dev.lock "$@"
    for group in quickstart openai docs bench containers; do
        compile --group $group --constraint requirements/dev.lock --output-file requirements/$group.lock "$@"
    done
    compile --no-deps --group local --constraint requirements/dev.lock --output-file requirements/local.lock "$@"
    compile --group image --constraint requirements/dev.lock --output-file deploy/requirements.lock "$@"
    printf 'hatchling\nsetuptools\n' | compile --constraint requirements/dev.lock --output-file deploy/build.lock "$@" -
