"""The image's health check: exits with 0 if the worker of this container says that it is alive."""

import os
import sys
from http.client import HTTPConnection


def main() -> int:
    """0 for a 200 of /healthz within 3 seconds, else 1, with the reason on stdout."""
    connection = HTTPConnection("127.0.0.1", int(os.environ["ATTO_HEALTH_PORT"]), timeout=3)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        print(response.read().decode(errors="replace").strip())
    except OSError as error:
        print(f"no answer: {error}")
        return 1
    finally:
        connection.close()
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
