"""Lightning without the packages that its torchmetrics imports and no recipe uses."""

import json
import subprocess
import sys

HEAVY = ("transformers", "matplotlib.pyplot", "scipy.signal")


def said_by(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import json, sys\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_what_a_training_does_not_use_is_not_imported():
    code = f"""
from redense.runs.lean import import_lightning
import_lightning()
import redense.runs.training, redense.recipes.images.task
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    assert said_by(code) == []


def test_afterwards_packages_are_found_as_ever_and_every_recipe_is_whole():
    code = """
from redense.runs.lean import import_lightning
import_lightning()
from lightning_utilities.core.imports import RequirementCache, package_available
import scipy.signal
import redense.runs.pictures
from redense.recipes import RECIPES
for recipe in RECIPES.values():
    recipe.task_class()
found = [bool(RequirementCache("matplotlib")), package_available("scipy")]
print(json.dumps([*found, scipy.signal.windows.hamming(3)[1]]))
"""
    assert said_by(code) == [True, True, 1.0]


def test_where_torchmetrics_is_there_already_nothing_is_changed():
    code = """
import torchmetrics.utilities.imports as known
from redense.runs.lean import import_lightning
import_lightning()
print(json.dumps([bool(known._MATPLOTLIB_AVAILABLE), "lightning" in sys.modules]))
"""
    assert said_by(code) == [True, False]
