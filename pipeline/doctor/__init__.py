"""``skysift doctor``: is everything here that a service needs, and if not, what to do.

Each check really tries what it is about and answers with `Finding` lines; none changes anything that it finds.
"""

from .finding import FAIL, OK, WARN, Finding, Place, run_checks, worst

__all__ = ["FAIL", "OK", "WARN", "Finding", "Place", "run_checks", "worst"]
