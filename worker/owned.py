"""One partition of `entity-updates` as its owner has it: where it stands, and what it folds."""

from __future__ import annotations

from collections.abc import Mapping

from worker.checkpoint import Checkpoint, updates_space_of
from worker.contracts.needs import Needs
from worker.contracts.settings import Settings
from worker.faults import fault
from worker.features.spec import FeatureSpec
from worker.positions import REBUILD, RESET, refuse, standing
from worker.secondary import Owner, joined, secondary_parts
from worker.stores import StateStore
from worker.streams import Stream
from worker.updates import read_updates

_RECORDS_MAX = 500


class Owned:
    """The fold of one partition of `entity-updates`, from the store's position on.

    The only position is the one in the store, beside the blobs: the reader is in no group.

    Parameters
    ----------
    end
        Of the partition, when no transaction was open on it.

    Raises
    ------
    FatalError
        The log and the store contradict each other; the message names the remedy.
    TransientError
        Stream or store are away; try again.
    """

    def __init__(
        self,
        stream: Stream,
        store: StateStore,
        settings: Settings,
        spec: FeatureSpec,
        partition: int,
        end: int,
        ttls_ms: tuple[int, int],
    ) -> None:
        topic = settings.outputs.entity_updates
        space = updates_space_of(settings.name, spec, partition)
        self._where, self._state_hash = f"{topic}/{partition}", spec.state_hash
        meta = standing(store, space)
        position = 0 if meta is None else meta.events_offset
        # Asked after the position: another owner may have gone on beyond ``end`` meanwhile.
        first, last = stream.log_range(topic, partition)
        end = max(end, last)
        if not first <= position <= end:
            hint = RESET if position < first else REBUILD
            refuse(topic, partition, f"a log that has the offset {position}",
                    f"one of [{first}, {end})", hint)  # fmt: skip
        self.owner = Owner(spec, secondary_parts(spec), settings.runner.entities_max)
        self.owner.events_next = position
        self.checkpoint = Checkpoint(store, space, meta, *ttls_ms)
        self._reader = stream.reader(topic, partition, position)

    @property
    def is_flushed(self) -> bool:
        """Return whether the store has everything up to the owner's position."""
        return self.owner.is_taken and self.checkpoint.is_settled

    def follow(self) -> Needs[int]:
        """Fold the records that are there; return the number of rows.

        Where it is not run to its end, this is of no more use: what was read is not folded.
        """
        records = self._reader.poll(0, _RECORDS_MAX)
        if records is None:
            # Markers and aborted records count too: others wait for the position.
            self.owner.events_next = max(self.owner.events_next, self._reader.position)
            return 0
        found = joined(
            [
                read_updates(v or b"", f"{self._where}@{o}", self._state_hash, self.owner.widths)
                for o, v in zip(records.offsets, records.values, strict=True)
            ]
        )
        yield from self.bring({name: rows.ids for name, rows in found.items()})
        self.owner.fold(found, records.next_offset)
        fault("secondary_folded")
        return sum(map(len, found.values()))

    def close(self) -> None:
        """Give back the reader."""
        self._reader.close()

    def bring(self, ids: Mapping[str, list[str]]) -> Needs[None]:
        """Load the entities that memory lacks."""
        keys = self.owner.missing(ids)
        if keys:
            self.owner.load(keys, (yield keys))
