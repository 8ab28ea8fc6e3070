"""A tagger in several Ray workers, which may die: the only file that imports ray.

The process that calls reads, writes and keeps the ledger; workers hold an engine each and tag batches. So the form
of the output, the keys and the way a run resumes are those of one machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from hangtag.errors import EngineError, MissingExtra
from hangtag.product import Product
from hangtag.tagging import Stream, Tagging, Usage

Load = Callable[[], tuple[Stream, Usage]]

_BATCH = 128
_BATCHES_PER_WORKER = 3
_ATTEMPTS = 5


class RayWorkers:
    """Streams products through `num_workers` Ray actors. `usage` sums their tokens."""

    def __init__(self, load: Load, *, num_workers: int, gpus_per_worker: float = 0, batch: int = _BATCH) -> None:
        """Start the workers, in the cluster that RAY_ADDRESS names or in a local one; `load` runs in each of them.

        Raises:
            MissingExtra: ray is not installed.
        """
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "scale") from None
        self.usage = Usage()
        self._ray = ray
        self._batch = batch
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        actor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=1, num_gpus=gpus_per_worker)(_Worker)
        self.workers = [actor.remote(load) for _ in range(num_workers)]

    def stream(self, products: Iterable[Product]) -> Iterator[Tagging]:
        """Yield one tagging a product, in order, keeping every worker busy.

        A batch whose worker died goes to another one; a worker that died is started again.

        Raises:
            EngineError: a batch failed in several workers, one after another.
        """
        iterator = iter(products)
        in_flight: dict[Any, tuple[int, int, int]] = {}
        held: dict[int, list[Product]] = {}
        done: dict[int, list[Tagging]] = {}
        load = [0] * len(self.workers)
        next_in = next_out = 0

        def submit(number: int, attempt: int) -> None:
            worker = min(range(len(load)), key=lambda one: (load[one], (one + number + attempt) % len(load)))
            load[worker] += 1
            in_flight[self.workers[worker].tag.remote(held[number])] = (number, worker, attempt)

        room = _BATCHES_PER_WORKER * len(self.workers)
        is_exhausted = False
        while not is_exhausted or in_flight or done:
            while not is_exhausted and len(in_flight) + len(done) < 2 * room and len(in_flight) < room:
                batch = list(islice(iterator, self._batch))
                if not batch:
                    is_exhausted = True
                    break
                held[next_in] = batch
                submit(next_in, 0)
                next_in += 1
            if in_flight:
                (finished,), _ = self._ray.wait(list(in_flight), num_returns=1)
                number, worker, attempt = in_flight.pop(finished)
                load[worker] -= 1
                try:
                    taggings, prompt_tokens, output_tokens, num_cut = self._ray.get(finished)
                except self._ray.exceptions.RayError as error:
                    if attempt + 1 == _ATTEMPTS:
                        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                        raise EngineError(f"a batch failed in {_ATTEMPTS} workers: {reason:.300}") from None
                    submit(number, attempt + 1)
                    continue
                self.usage.prompt_tokens += prompt_tokens
                self.usage.output_tokens += output_tokens
                self.usage.num_cut += num_cut
                done[number] = taggings
                del held[number]
            while next_out in done:
                yield from done.pop(next_out)
                next_out += 1

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            self._ray.kill(worker)


class _Worker:
    def __init__(self, load: Load) -> None:
        self._stream, self._usage = load()

    def tag(self, products: list[Product]) -> tuple[list[Tagging], int, int, int]:
        before = (self._usage.prompt_tokens, self._usage.output_tokens, self._usage.num_cut)
        taggings = list(self._stream(products))
        after = (self._usage.prompt_tokens, self._usage.output_tokens, self._usage.num_cut)
        prompt, output, cut = (now - then for now, then in zip(after, before, strict=True))
        return taggings, prompt, output, cut

    def process(self) -> int:
        return os.getpid()
