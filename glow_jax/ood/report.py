"""Results as tables, for the terminal and in Markdown."""

from collections.abc import Callable, Mapping, Sequence

from glow_jax.ood.metrics import Interval
from glow_jax.ood.results import CONVENTION, Comparison, Figures, OnRecord, TypicalityTest
from glow_jax.ood.typicality import BatchTest

Rows = Sequence[Sequence[str]]


def as_text(rows: Rows) -> str:
    """A table with aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_markdown(rows: Rows) -> str:
    """The same table in Markdown."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text_report(comparison: Comparison) -> str:
    """The figures of a comparison for the terminal."""
    return "\n\n".join(_sections(comparison, as_text, papers=False))


def markdown_report(comparison: Comparison) -> str:
    """The same figures in Markdown, with the papers."""
    title = f"# {comparison.inside.dataset} against {comparison.outside.dataset}"
    return "\n\n".join([title, *_sections(comparison, as_markdown, papers=True)]) + "\n"


def _sections(comparison: Comparison, table: Callable[[Rows], str], *, papers: bool) -> list[str]:
    sections = [_introduction(comparison), table(_score_rows(comparison.scores, papers=papers))]
    not_finite = {
        figures.title: figures.not_finite
        for figures in comparison.scores.values()
        if figures.not_finite
    }
    if not_finite:
        counts = ", ".join(f"{title}: {count}" for title, count in not_finite.items())
        sections.append(
            f"Scores that are not finite (infinity ranks first, the others last): {counts}."
        )
    fewer = [
        f"{figures.title}: {figures.images_in:,} and {figures.images_out:,}"
        for figures in comparison.scores.values()
        if figures.images_in < comparison.inside.images
        or figures.images_out < comparison.outside.images
    ]
    if fewer:
        sections.append(f"Of fewer images: {', '.join(fewer)}.")
    if comparison.typicality_test is not None:
        sections += _typicality(comparison.typicality_test, table)
    if comparison.on_record:
        sections += ["Figures on record:", table(_record_rows(comparison.on_record))]
    return sections


def _introduction(comparison: Comparison) -> str:
    sets = []
    for about in (comparison.inside, comparison.outside):
        bits = about.bits_per_dim
        known = "" if bits is None else f", {bits:.4f} bits/dim"
        sets.append(f"{about.dataset} ({about.images:,} {about.split} images{known})")
    rejected = ""
    if _has_thresholds(comparison.scores):
        rejected = " Rejected are images that score lower than 95 % of training images."
    return (
        f"{sets[0]} against {sets[1]}.\n{CONVENTION[0].upper()}{CONVENTION[1:]}, in AUPR-out and "
        f"FPR-out the other set.\nFPR is at 95 % TPR; [95 % bootstrap].{rejected}"
    )


def _score_rows(scores: Mapping[str, Figures], *, papers: bool) -> Rows:
    head = ["score", "AUROC", "AUPR-in", "FPR-in", "AUPR-out", "FPR-out"]
    judged = _has_thresholds(scores)
    rows = [[*head, *(["rejected in, out"] if judged else []), *(["paper"] if papers else [])]]
    for figures in scores.values():
        found = figures.detection
        intervals = (found.auroc, found.aupr, found.fpr95, found.aupr_out, found.fpr95_out)
        cells = [_interval(interval) for interval in intervals]
        cells += [_rejected(figures)] if judged else []
        rows.append([figures.title, *cells, *([figures.paper] if papers else [])])
    return rows


def _has_thresholds(scores: Mapping[str, Figures]) -> bool:
    return any(figures.threshold is not None for figures in scores.values())


def _rejected(figures: Figures) -> str:
    found = figures.threshold
    return "" if found is None else f"{found.rejected_in:.1%}, {found.rejected_out:.1%}"


def _interval(figure: Interval) -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def _typicality(test: TypicalityTest, table: Callable[[Rows], str]) -> list[str]:
    source = test.thresholds_from
    caution = ""
    if source.split == "training":
        caution = " (which the model has seen, so more than 1 % of other images may be rejected)"
    return [
        "Typicality test of batches (Nalisnick et al. 2019, arXiv 1906.02994), thresholds of "
        f"1 % from {source.images:,} {source.split} images{caution}:",
        table(_typicality_rows(test.batches)),
    ]


def _typicality_rows(tests: Sequence[BatchTest]) -> Rows:
    head = ["images in a batch", "threshold, bits/dim", "rejected in", "rejected out"]
    rows = [
        [
            str(test.size),
            f"{test.threshold:.4f}",
            f"{test.rejected_in:.1%}",
            f"{test.rejected_out:.1%}",
        ]
        for test in tests
    ]
    return [head, *rows]


def _record_rows(known: Sequence[OnRecord]) -> Rows:
    rows = [["figure", "on record", "here", "source"]]
    for beside in known:
        record, here = beside.record, beside.here
        rows.append(
            [
                f"AUROC of {record.score}" if record.score else "bits/dim",
                f"{record.value:.4f}" if record.score else f"{record.value:.2f}",
                "not computed" if here is None else f"{here:.4f}",
                record.source,
            ]
        )
    return rows
