"""MLflow's flavour of user models: logged with their bundles, loaded again, and asked as a pyfunc.

`peterrec.mlflow.log_model(model, "users")`, `peterrec.mlflow.load_model("models:/users/1")` (docs/tuning.md).
"""

from peterrec.mlflow.flavor import FLAVOR_NAME, load_model, log_model, save_model
from peterrec.mlflow.pyfunc import load_pyfunc as _load_pyfunc

__all__ = ["FLAVOR_NAME", "_load_pyfunc", "load_model", "log_model", "save_model"]
