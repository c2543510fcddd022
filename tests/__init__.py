"""Tests of colabkit; a package, since some of what Colab brings installs a folder of this name beside its own code."""
