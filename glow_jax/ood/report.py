"""Results as tables, for the terminal and in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def text_report(results: Mapping[str, Any]) -> str:
    """The results of `comparison.compare` for the terminal."""
    return "\n\n".join(_sections(results, as_text, papers=False))


def markdown_report(results: Mapping[str, Any]) -> str:
    """The same results in Markdown, with the papers."""
    title = "# {} against {}".format(
        *(results[key]["dataset"] for key in ("in_distribution", "out_of_distribution"))
    )
    return "\n\n".join([title, *_sections(results, as_markdown, papers=True)]) + "\n"


def _sections(
    results: Mapping[str, Any], table: Callable[[Rows], str], *, papers: bool
) -> list[str]:
    sections = [_introduction(results), table(_score_rows(results["scores"], papers=papers))]
    not_finite = {
        figures["title"]: figures["not_finite"]
        for figures in results["scores"].values()
        if figures["not_finite"]
    }
    if not_finite:
        counts = ", ".join(f"{title}: {count}" for title, count in not_finite.items())
        sections.append(
            f"Scores that are not finite (infinity ranks first, the others last): {counts}."
        )
    if "typicality_test" in results:
        test = results["typicality_test"]
        source = test["thresholds_from"]
        in_sample = source["split"] == "training"
        caution = " (which the model has seen, so more than 1 % of other images may be rejected)"
        sections += [
            "Typicality test of batches (Nalisnick et al. 2019, arXiv 1906.02994), thresholds of "
            f"1 % from {source['images']:,} {source['split']} images"
            f"{caution if in_sample else ''}:",
            table(_typicality_rows(test["batches"])),
        ]
    if "on_record" in results:
        sections += ["Figures on record:", table(_record_rows(results["on_record"]))]
    return sections


def _introduction(results: Mapping[str, Any]) -> str:
    sets = []
    for key in ("in_distribution", "out_of_distribution"):
        about = results[key]
        bits = about.get("bits_per_dim")
        known = "" if bits is None else f", {bits:.4f} bits/dim"
        sets.append(f"{about['dataset']} ({about['images']:,} {about['split']} images{known})")
    convention = results["convention"]
    return (
        f"{sets[0]} against {sets[1]}.\n{convention[0].upper()}{convention[1:]}; [95 % bootstrap]."
    )


def _score_rows(scores: Mapping[str, Any], *, papers: bool) -> Rows:
    head = ["score", "AUROC", "AUPR", "FPR at 95 % TPR", *(["paper"] if papers else [])]
    return [
        head,
        *(
            [
                figures["title"],
                *(_interval(figures[name]) for name in ("auroc", "aupr", "fpr95")),
                *([figures["paper"]] if papers else []),
            ]
            for figures in scores.values()
        ),
    ]


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def _typicality_rows(tests: Sequence[Mapping[str, float]]) -> Rows:
    return [
        ["images in a batch", "threshold, bits/dim", "rejected in", "rejected out"],
        *(
            [
                str(test["size"]),
                f"{test['threshold']:.4f}",
                f"{test['rejected_in']:.1%}",
                f"{test['rejected_out']:.1%}",
            ]
            for test in tests
        ),
    ]


def _record_rows(records: Sequence[Mapping[str, Any]]) -> Rows:
    return [
        ["figure", "on record", "here", "source"],
        *(
            [
                f"AUROC of {record['score']}" if record["score"] else "bits/dim",
                f"{record['value']:.4f}" if record["score"] else f"{record['value']:.2f}",
                "not computed" if record["here"] is None else f"{record['here']:.4f}",
                record["source"],
            ]
            for record in records
        ),
    ]
