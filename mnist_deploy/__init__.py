"""Deploy an image classification model with Azure Machine Learning, on Azure or without it.

The public names are those of ``__init__.pyi``, which type checkers read too. Each is imported
when it is first used: ``import mnist_deploy`` costs nothing, and a plot needs no Azure.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
