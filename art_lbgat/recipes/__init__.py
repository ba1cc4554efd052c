"""The published recipes, and small ones that a laptop can run, as data.

Three complete uses::

    RECIPES["lbgat6-cifar100-wrn34-10"].build(root="data").fit()                     # as published
    RECIPES["digits-lbgat"].override(eps=0.2, awp_gamma=5e-3).build().fit()          # field by field
    Recipe.read("my.toml").build()                                                   # from a file that `save` wrote

``build`` gives classifier, guides, trainer and data (:class:`Experiment`).
"""

from art_lbgat.recipes.build import Experiment
from art_lbgat.recipes.published import PUBLISHED
from art_lbgat.recipes.recipe import RECIPES, PublishedResult, Recipe
from art_lbgat.recipes.small import ABLATIONS, SMALL, ablation

RECIPES.update({recipe.id: recipe for recipe in (*PUBLISHED, *SMALL)})

__all__ = ["ABLATIONS", "PUBLISHED", "RECIPES", "SMALL", "Experiment", "PublishedResult", "Recipe", "ablation"]
