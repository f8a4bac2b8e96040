"""Scorers of community challenges, exact and in a corrected form."""

from pipeline.scorers.sdc1 import SUBSCORES, Sdc1Score, chance_matches, score_sdc1
from pipeline.scorers.sdc1_table import SDC1_COLUMNS, as_sdc1, read_sdc1

__all__ = ["SDC1_COLUMNS", "SUBSCORES", "Sdc1Score", "as_sdc1", "chance_matches", "read_sdc1", "score_sdc1"]
