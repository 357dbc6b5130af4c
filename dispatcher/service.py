"""What the API and the RunPod handler are built from: settings, state, doorbells, the way in."""

from dataclasses import dataclass

from dispatcher.readers import Readers
from dispatcher.submit import Submitter
from dispatcher.wakeups import Wakeups
from tasks.app import Doorbells, create_app
from tasks.blobs import Blobs
from tasks.job import Status
from tasks.leases import Leases
from tasks.outbox import Outbox
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store

ENDPOINT = "longhand"


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the dispatcher."""

    settings: Settings
    store: Store
    outbox: Outbox
    submitter: Submitter
    wakeups: Wakeups
    readers: Readers
    endpoint: str = ENDPOINT

    @staticmethod
    def build(settings: Settings) -> "Service":
        client = connect(settings.state_url)
        store = Store(client, settings)
        bells = Doorbells(create_app(settings), Leases(client, settings))
        return Service(
            settings,
            store,
            Outbox(client, settings),
            Submitter(settings, store, bells, Blobs(settings.blobs)),
            Wakeups(settings.state_url),
            Readers(),
        )

    def counts(self, endpoint: str) -> tuple[dict[Status, int], tuple[int, int]]:
        """Jobs by status; live transcription slots and how many of them are busy."""
        return self.store.counts(endpoint), self.store.slots("transcribe")
