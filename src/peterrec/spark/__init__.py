"""Answers about the users of a Spark DataFrame: `predict`, `recommend` and `embed`, computed by the executors.

They are those of the functions of the same names in `peterrec`: labels are equal, numbers to within 1e-5. Needs Apache
Spark (`pip install 'peterrec[spark]'`, Java 17 or later), and peterrec in the Python of the executors.
"""

from peterrec.spark.answers import embed, predict, recommend

__all__ = ["embed", "predict", "recommend"]
