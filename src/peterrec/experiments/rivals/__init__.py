"""Networks of other papers in their plain form, trained and stopped as ours are."""

from __future__ import annotations

from peterrec.experiments.rivals.settings import check_rival
from peterrec.experiments.rivals.train import train_rival
from peterrec.experiments.rivals.trained import Rival

__all__ = ["Rival", "check_rival", "train_rival"]
