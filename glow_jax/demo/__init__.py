"""The demo: a local page on which a run draws, looks at pictures and edits them.

`page`, `tabs` and `tab_editing` alone know how the page is made. All else computes what it shows.
"""
