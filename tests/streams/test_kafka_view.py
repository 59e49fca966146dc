"""What a command sees of a group that it is no member of."""

from __future__ import annotations

import time
import uuid
from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from worker.contracts.settings import KafkaSettings
from worker.errors import TransientError
from worker.streams.kafka_view import KafkaView

pytestmark = pytest.mark.kafka


def test_a_group_that_nobody_can_tell_of_is_not_taken_for_an_empty_one(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while its coordinator moves: a command would write beside workers that live."""
    topics = [f"view-{uuid.uuid4().hex[:8]}-{kind}" for kind in ("events", "journal")]
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics([NewTopic(name, 1) for name in topics]).values():
        future.result(30)
    settings = KafkaSettings(kind="kafka", bootstrap_servers=kafka)
    with closing(KafkaView(settings, "nobody", topics)) as view:
        assert _members(view) == []
        told = {"error": "[Error 16] NotCoordinatorError: None", "members": []}
        monkeypatch.setattr(view._admin, "describe_groups", lambda groups: {groups[0]: told})
        with pytest.raises(TransientError, match="NotCoordinatorError"):
            view.members()


def _members(view: KafkaView) -> list[str]:
    """Return the members once the broker has its topic of offsets, which it makes when asked."""
    while True:
        try:
            return view.members()
        except TransientError:
            time.sleep(0.1)
