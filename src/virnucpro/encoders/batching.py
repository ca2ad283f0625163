"""Token rows of unequal length -> batches within a budget."""

from collections.abc import Iterator, Sequence

# Pads cost as much as letters, small batches leave a device idle: so much of each is borne.
MOST_PADS = 0.02


LEAST_OF_BUDGET = 1 / 16


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of sequences, the longest first, in batches of rows * longest <= budget.

    A sequence longer than the budget is a batch of its own. A batch of some size also ends where
    more rows would make more than MOST_PADS of it pads. Equal lengths keep their order.
    """
    batch: list[int] = []
    longest = real = 0
    for place in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        tokens = (len(batch) + 1) * longest
        pads = tokens - real - lengths[place]
        wasteful = real >= LEAST_OF_BUDGET * budget and pads > MOST_PADS * tokens
        if batch and (tokens > budget or wasteful):
            yield batch
            batch, real = [], 0
        longest = longest if batch else lengths[place]
        batch.append(place)
        real += lengths[place]
    if batch:
        yield batch
