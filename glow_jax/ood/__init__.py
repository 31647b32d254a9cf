"""Out-of-distribution detection: do deep generative models know what they don't know?

Nalisnick et al. 2019, arXiv 1810.09136. What is measured of each image (`measure`) is kept in the
run folder (`store`), becomes scores (`scores`), and these are compared between two data sets
(`metrics`, `typicality`). `comparison` puts them together as `results`, and `report` and `plots`
show it.
"""
