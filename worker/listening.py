"""Which inputs of a worker have come to their end, so that nobody waits for them."""

from __future__ import annotations

from collections.abc import Mapping

from worker.inbox import Inbox
from worker.streams import Polled, TopicPartition

_SILENT_TURNS_MAX = 5


class Listening:
    """Tells an input that has nothing more from one whose turn has not come yet.

    A client serves its topic partitions in turn, so that a poll which brought others' records says
    little of the silent ones; one that brought nothing at all counts as a whole turn. After five
    turns without a record an input counts as ended although its log has more: what keeps it back,
    for example an open transaction of whoever writes labels, must not stop the scores.
    """

    def __init__(self, *topics: str | None) -> None:
        self._topics = [topic for topic in topics if topic is not None]
        self._silence: dict[TopicPartition, int] = {}
        self._caught_up: frozenset[TopicPartition] = frozenset()

    def hear(self, polled: Polled, inboxes: Mapping[int, Inbox]) -> None:
        """Take note of a poll; ``inboxes``, by partition, have its records already."""
        places = [(topic, p) for topic in self._topics for p in inboxes]
        more = 1 if any(len(records) for records in polled.records) else len(places)
        heard = {(t, p) for t, p in places if inboxes[p].waiting(t)} | polled.caught_up
        before = self._silence
        self._silence = {x: 0 if x in heard else before.get(x, 0) + more for x in places}
        self._caught_up = polled.caught_up

    @property
    def stalled(self) -> int:
        """Return how many inputs are not waited for although their log has more."""
        return sum(self.has_ended(*x) for x in self._silence.keys() - self._caught_up)

    def has_ended(self, topic: str | None, partition: int) -> bool:
        """Return whether a topic is not to be waited for; one that is not declared never is."""
        if topic is None or (topic, partition) in self._caught_up:
            return True
        return self._silence[topic, partition] > _SILENT_TURNS_MAX * len(self._silence)
