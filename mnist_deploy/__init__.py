"""Deploy an image classification model with Azure Machine Learning, on Azure or without it.

The public names are those of ``__init__.pyi``, which type checkers read as well. Each is imported
on first use, so that ``import mnist_deploy`` is fast and plotting imports no Azure SDK.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
