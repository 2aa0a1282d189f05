from . import errors as errors
from .client import call_service as call_service
from .client import post_images as post_images
from .data import MnistFiles as MnistFiles
from .data import download_mnist as download_mnist
from .data import load_data as load_data
from .data import load_test_data as load_test_data
from .data import load_training_data as load_training_data
from .deployment import build_aci_config as build_aci_config
from .deployment import build_aks_config as build_aks_config
from .deployment import build_inference_config as build_inference_config
from .deployment import closing_service as closing_service
from .deployment import delete_service as delete_service
from .deployment import deploy_to_aci as deploy_to_aci
from .deployment import deploy_to_aks as deploy_to_aks
from .deployment import package_service as package_service
from .environments import fetch_environment as fetch_environment
from .models import download_model as download_model
from .models import fetch_model as fetch_model
from .part_one import prepare_workspace as prepare_workspace
from .plots import plot_comparison as plot_comparison
from .plots import plot_confusion_matrix as plot_confusion_matrix
from .plots import plot_misclassified as plot_misclassified
from .plots import plot_predictions as plot_predictions
from .tutorial import tutorial_file as tutorial_file
from .workspace import connect_workspace as connect_workspace

__version__: str
