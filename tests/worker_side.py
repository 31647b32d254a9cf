"""A side for tests of the benchmarks' processes, without JAX."""

import time


class Side:
    def double(self, number: int) -> int:
        return 2 * number

    def fail(self) -> None:
        raise RuntimeError("nothing is left")

    def sleep(self) -> None:
        time.sleep(60)
