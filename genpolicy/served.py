"""Where models that MLflow has logged before look for what loads them, which is in `genpolicy.api`."""

from genpolicy.api import _load_pyfunc as _load_pyfunc
