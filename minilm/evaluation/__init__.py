"""Looking at models: whether they keep the rules."""

from .check import CheckResult, check_model

__all__ = ["CheckResult", "check_model"]
