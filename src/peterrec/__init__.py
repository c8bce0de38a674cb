"""peterrec: learn one user model from what people did, and reuse it for many tasks.

The public surface is what this module exports; each verb of the command line is one function here. Verbs and classes
refuse an argument of another type than its annotation with a `ConfigError`. "The paper", in all docstrings, is
Yuan, He, Karatzoglou, Zhang: "Parameter-Efficient Transfer from Sequential Behaviors for User Modeling and
Recommendation" (PeterRec), SIGIR 2020, doi:10.1145/3397271.3401156.
"""

import logging

import lazy_loader

# A library is silent unless its user configures logging: `logging.getLogger("peterrec")`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Imported when first used: `import peterrec` and `peterrec --help` do not wait for torch. `__init__.pyi` has the names.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
