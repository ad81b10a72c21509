"""How far the processes of a grid are, told from the files that they write, wherever they run."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.harness.plan import BackboneJob
from da_compose.progress import Phase, phase
from da_compose.training.pretrained import MOCK_DOMAINS
from da_compose.training.run import LOG

SECONDS = 1.0  # between two looks
OF_MOCK = 20  # steps that a mock domain takes as long as


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network that is to be trained in a folder, in so many steps, and then mock domains."""

    name: str
    folder: Path
    steps: int
    mock_domains: int = 0

    @classmethod
    def of(cls, job: BackboneJob, folder: Path) -> "Training":
        """The training of a benchmark's backbone."""
        if job.pretrained is None:
            return cls(name=job.title, folder=folder, steps=job.pretrain_config.steps)
        directions = job.pretrained.directions
        mocks = 0 if directions is None else directions.mock_domains
        return cls(name=job.title, folder=folder, steps=job.finetune_steps, mock_domains=mocks)

    @property
    def cost(self) -> int:
        """In steps."""
        return self.steps + OF_MOCK * self.mock_domains

    def taken(self) -> tuple[int, int]:
        """Steps and mock domains that are done."""
        with suppress(OSError):
            steps = (self.folder / LOG).read_bytes().count(b"\n")
            mocks = len([*(self.folder / MOCK_DOMAINS).glob("mock-*.safetensors")])
            return min(steps, self.steps), min(mocks, self.mock_domains)
        return 0, 0

    def place(self) -> str:
        """Where it is, in words."""
        steps, mocks = self.taken()
        if steps < self.steps:
            return f"{self.name}: step {steps} of {self.steps}"
        if mocks < self.mock_domains:
            return f"{self.name}: mock domain {mocks} of {self.mock_domains}"
        return f"{self.name}: rehearsing"


class Watch:
    """A look at trainings and at the rows that are new in a file of results.

    cost: of a row, in steps of training. seen: is given the new rows, as JSON has them.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        rows: int,
        cost: float,
        results: Path,
        seen: Callable[[Sequence[dict[str, Any]]], object],
    ) -> None:
        self.trainings, self.rows, self.cost, self.seen = trainings, rows, cost, seen
        self.results, self.found = results, 0
        self.place = results.read_bytes().rfind(b"\n") + 1 if results.exists() else 0

    @property
    def total(self) -> int:
        """Of all there is to do, in steps."""
        return round(sum(one.cost for one in self.trainings) + self.cost * self.rows)

    def look(self, running: Phase) -> None:
        """Tell of what is new."""
        if rows := self._new_rows():
            self.found += len(rows)
            self.seen(rows)
        done, under_way = self.cost * min(self.found, self.rows), []
        for one in self.trainings:
            steps, mocks = one.taken()
            finished = not (one.folder / LOG).exists() or self._is_whole(one)
            done += one.cost if self._is_whole(one) else steps + OF_MOCK * mocks
            under_way += [] if finished else [one.place()]
        note = ", ".join([f"{self.found} of {self.rows} results", *under_way])
        running.to(round(done), note)

    def _is_whole(self, one: Training) -> bool:
        return (one.folder / "backbone.safetensors").exists()

    def _new_rows(self) -> list[dict[str, Any]]:
        if not self.results.exists():
            return []
        with self.results.open("rb") as file:
            file.seek(self.place)
            whole = file.read().rpartition(b"\n")[0]
        self.place += len(whole) + bool(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]


@contextmanager
def watched(what: str, watch: Watch) -> Iterator[None]:
    """Show how far the processes are that run inside."""
    with phase(what, watch.total, counted=False) as running:
        ended = Event()

        def look() -> None:
            while not ended.wait(SECONDS):
                watch.look(running)

        thread = Thread(target=copy_context().run, args=(look,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            watch.look(running)
