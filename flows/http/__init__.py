"""The survey read from outside: cone search, pages, numbers for Prometheus; changes only with a token."""

from __future__ import annotations

from flows.http.app import make_app
from flows.http.site import Limits

__all__ = ["Limits", "make_app"]
