"""A fuzzer: valid files, folders and command lines, damaged in ways that know their structure.

`python -m tests.fuzz --cases 10000` runs it. Every case must end well, or be refused in one
sentence. A case is its kind and its seed, and the same wherever it runs, but for what other
libraries draw at random when they save something.
"""
