"""What the API and the RunPod handler are built from: settings, state, doorbells, the way in."""

from dataclasses import dataclass

import structlog

from dispatcher.readers import Readers
from dispatcher.submit import Submitter
from dispatcher.wakeups import Wakeups
from tasks.app import Doorbells, create_app
from tasks.blobs import Blobs
from tasks.endpoints import DEFAULT
from tasks.job import Status
from tasks.keys import Keys
from tasks.leases import Leases
from tasks.outbox import Outbox
from tasks.presence import Census, Presence
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tasks.uploads import Uploads

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the dispatcher."""

    settings: Settings
    store: Store
    leases: Leases
    outbox: Outbox
    keys: Keys
    blobs: Blobs
    submitter: Submitter
    wakeups: Wakeups
    readers: Readers
    uploads: Uploads
    presence: Presence
    endpoint: str = DEFAULT

    @staticmethod
    def build(settings: Settings) -> "Service":
        client = connect(settings.state_url)
        blobs, uploads = Blobs(settings.blobs), Uploads(client, settings)
        store = Store(client, settings)
        leases = Leases(client, settings)
        bells = Doorbells(create_app(settings), leases)
        return Service(
            settings,
            store,
            leases,
            Outbox(client, settings),
            Keys(client),
            blobs,
            Submitter(settings, store, bells, blobs, uploads),
            Wakeups(settings.state_url),
            Readers(),
            uploads,
            Presence(client, settings),
        )

    def check(self) -> None:
        """Log warnings about Redis; raises ConfigurationError where jobs could not be accepted."""
        for warning in self.store.check_server():
            log.warning("redis_warning", warning=warning)
        self.blobs.check()

    def counts(self, endpoint: str) -> tuple[dict[Status, int], Census, int]:
        """Jobs by status; how the slots for transcribing stand; how many units are worked on or rung for."""
        _, busy = self.store.slots("transcribe")
        return self.store.counts(endpoint), self.presence.census("transcribe", "transcribe"), busy
