"""The demo: a local page on which a run draws, looks at pictures and edits them.

`page` alone knows how the page is made. All else computes what it shows.
"""
