"""SegAtlas beside its peers: both sides of every row of the performance table in one process, turn by turn.

Run by the interpreter of an environment that holds the peers (`make bench`), with this source tree on its path:

    PYTHONPATH=src PEERS/bin/python -m benchmarks --out docs/performance.json

A row (`rows.Row`) is one piece of work done by us and by some peers. `table` lists all rows, `child` measures one of
them in a process of its own, `campaign` runs the chosen rows and writes the figures, `page` makes the documentation
page from the figures alone. No code of a peer stands here: they are called, or their steps are done in our own words.
"""
