"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that grow exponentially up to a limit, the one policy of everything here that tries again.

    first   seconds after the first failure
    most    seconds that no pause exceeds, before `spread`
    growth  what each pause is of the one before it
    spread  a pause is multiplied by a random number between these, so that clients that failed together do not come
            back together. (0, 1) is "full jitter" (Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog)
    """

    first: float
    most: float
    growth: float = 2.0
    spread: tuple[float, float] = (1.0, 1.0)

    def after(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 being the first; 0 or less counts as 1."""
        pause = self.first
        for _ in range(failures - 1):  # not by a power, which a service that fails for days would overflow
            if pause >= self.most:
                break
            pause *= self.growth
        low, high = self.spread
        return min(self.most, pause) * (low if low == high else random.uniform(low, high))
