"""Hydra plugins of genpolicy. Hydra imports every module here at each start of every Hydra program."""
