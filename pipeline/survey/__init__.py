"""The survey's store: observations, runs, sources and objects of a whole survey, in SQLite or PostgreSQL."""

from __future__ import annotations

from .database import DEFAULT_STORE
from .problems import StoreError
from .store import SurveyStore, open_store, run_key

__all__ = ["DEFAULT_STORE", "StoreError", "SurveyStore", "open_store", "run_key"]
