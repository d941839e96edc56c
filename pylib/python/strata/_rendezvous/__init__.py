"""torchrun's rendezvous over records of the coordinator, for `strata.torchrun` alone.

`backend` holds torch's own state, and lets nobody be forgotten while the coordinator was away; `store` holds the keys
of a round; `handler` joins them. All import torch. What they use of torch beyond its documents is named there.
"""
