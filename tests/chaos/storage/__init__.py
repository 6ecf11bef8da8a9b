"""The master against its disk: power cuts, death at any write, failed syncs, no room, flipped bits.

`python -m tests.chaos.storage --help` says how to run the long campaigns; each leaves one result that
the reliability report is made of. The tests here run a sample of each, and what needs no campaign.
"""
