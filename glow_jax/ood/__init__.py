"""Out-of-distribution detection: do deep generative models know what they don't know?

Nalisnick et al. 2019, arXiv 1810.09136. `measure` measures each image; `store` keeps the numbers in
the run folder. `scores` turns them into scores; `metrics` and `typicality` compare the scores of
two data sets. `comparison` puts these together as `results`; `report` and `plots` show them.
"""
