"""The table of rules as a page: `python -m atto.testing.providers > docs/provider-rules.md`."""

import sys

from atto.testing.providers.server import PROVIDERS

_HEAD = """# What providers refuse

`atto.testing.providers.RuleServer` plays the providers of models on loopback, and refuses what they refuse,
in their own words. These are its rules (`python -m atto.testing.providers` makes this page). *documented*: by
the provider, or in its SDK; *seen*: in an error report; *inferred*: from those. The evidence was gathered in
November 2026, without asking any provider.
"""


def page() -> str:
    """The page, as Markdown."""
    lines = [_HEAD]
    for provider in PROVIDERS.values():
        lines += [f"## {provider.name}", "", "| refused | evidence |", "| --- | --- |"]
        lines += [
            f"| {rule.name.replace('|', '&#124;')} | [{rule.evidence}]({rule.source}) |"
            for rule in provider.rules
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
