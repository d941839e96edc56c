"""torch's loaders over a dataset: with worker processes, and with the position of what was handed over.

Called by `strata.torch`. Workers have no connection to anything: they read files by a share that was sent to them.
Which batch the caller has is told by the batch itself, in the process that has the job, when it is first looked at; so
what workers have read ahead counts for nothing. Must never import `job`.
"""

from .batch import Batch
from .iterable import IterableDataset
from .mapped import MapDataset

__all__ = ["Batch", "IterableDataset", "MapDataset"]
