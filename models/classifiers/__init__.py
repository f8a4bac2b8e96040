"""Classifiers of spectra and of pictures, one architecture per file; the registry imports all or the one asked for.

What a classifier's module has beside its layers: ``name``, ``options``, ``inputs`` (`models.signature`), ``answers``
(`models.answers.Answers`), ``grid`` (`survey_io.spectral_grid.SpectralGrid`), ``prepare(flux, seen)``, which makes the
network's input of spectra on the grid in numpy, and ``lesson(options)`` (`models.classifier_lesson`). One that reads
light curves may name its ``background``, the class that says that nothing was found: of several windows of a long
curve the one least like it is told of.

Classifiers of pictures (`models.residual.PictureClassifier`) have ``side`` and ``channels`` in place of a grid, and
``prepare(pixels)``. Without classes of their own they take those of the data that they are trained on.
"""

MODULES = ("cutouts", "darknet19", "galaxy", "molecules", "stellar", "transits", "vision")
