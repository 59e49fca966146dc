"""From a calibrated score to an alert: threshold, budget, lists, evidence, suppression, incidents.

All of it is a fold of the scored events in log order: no clock, and the same however batches fall.
"""

from worker.decisions.decider import Decided, Decider, Scores
from worker.decisions.incidents import Incident

__all__ = ["Decided", "Decider", "Incident", "Scores"]
