"""Classifiers of spectra, one architecture per file; the registry imports these, all or only the one that is asked for.

What a classifier's module has beside its layers: ``name``, ``options``, ``inputs`` (`models.signature`), ``answers``
(`models.answers.Answers`), ``grid`` (`survey_io.spectral_grid.SpectralGrid`), ``prepare(flux, seen)``, which makes the
network's input of spectra on the grid in numpy, and ``lesson(options)`` (`models.classifier_lesson`). One that reads
light curves may name its ``background``, the class that says that nothing was found: of several windows of a long
curve the one least like it is told of.
"""

MODULES = ("cutouts", "molecules", "stellar", "transits")
