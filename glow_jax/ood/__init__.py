"""Out-of-distribution detection: do deep generative models know what they don't know?

Nalisnick et al. 2019, arXiv 1810.09136. `images` loads the images and `synthetic` makes some;
`measure` and `dimension` measure each, and `store` keeps the numbers in the run folder. `scores`
turns them into scores, some of them `fitted` to training images; `metrics` and `typicality` compare
the scores of two data sets. `comparison` puts these together as `results`; `report`, `table` and
`plots` show them.
"""
