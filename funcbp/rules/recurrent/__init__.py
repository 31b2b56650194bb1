"""Recurrences through time: cells, their networks, and the linear recurrence."""

from .cells import elman_cell as elman_cell
from .cells import gru_cell as gru_cell
from .cells import lstm_cell as lstm_cell
from .linear_recurrence import linear_recurrence as linear_recurrence
from .sequences import elman as elman
from .sequences import gru as gru
from .sequences import lstm as lstm

__all__ = ["elman", "elman_cell", "gru", "gru_cell", "linear_recurrence", "lstm", "lstm_cell"]
