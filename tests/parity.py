"""The table of parity figures: every comparison is held to a bound, and its worst kept."""


class Figures:
    """The largest difference that each comparison met, beside its bound.

    `pytest -s` shows the table when a test file is done.
    """

    def __init__(self, title: str):
        self.title = title
        self.worst: dict[str, tuple[float, float]] = {}

    def check(self, name: str, difference: float, bound: float, detail: str = "") -> None:
        """Assert that a difference is within its bound, and keep the one nearest to it."""
        assert difference <= bound, f"{name} {detail}: {difference} > {bound}"
        before = self.worst.get(name, (0.0, bound))
        self.worst[name] = max(before, (difference, bound), key=lambda entry: entry[0] / entry[1])

    def print(self) -> None:
        print(f"\n| {self.title} | largest difference | bound |\n|---|---|---|")
        for name, (difference, bound) in self.worst.items():
            print(f"| {name} | {difference:.1e} | {bound:.1e} |")
