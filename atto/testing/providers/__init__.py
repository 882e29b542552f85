"""A rule server: what the providers of models refuse, with where that is written, on loopback."""

from atto.testing.providers.rule import Ask, Evidence, Refused, Rule, Violation
from atto.testing.providers.server import PROVIDERS, Provider, RuleServer

__all__ = ["PROVIDERS", "Ask", "Evidence", "Provider", "Refused", "Rule", "RuleServer", "Violation"]
