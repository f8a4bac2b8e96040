"""Scorers of community challenges, exact and in a corrected form."""

from pipeline.scorers.sdc1 import SUBSCORES, Sdc1Score, chance_matches, score_sdc1
from pipeline.scorers.sdc1_table import SDC1_COLUMNS, as_sdc1, read_sdc1
from pipeline.scorers.sdc2 import SDC2_SUBSCORES, Sdc2Score, score_sdc2

__all__ = [
    "SDC1_COLUMNS", "SDC2_SUBSCORES", "SUBSCORES", "Sdc1Score", "Sdc2Score", "as_sdc1", "chance_matches", "read_sdc1",
    "score_sdc1", "score_sdc2",
]  # fmt: skip
