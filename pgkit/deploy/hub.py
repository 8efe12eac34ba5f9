"""Exported policies on the Hugging Face Hub (extra ``hub``)."""

from pathlib import Path

from pgkit.errors import PgkitError, describe_exception

MISSING = "--push needs the package huggingface_hub: pip install 'pgkit-rl[hub]'"


def check_push(repository: str) -> None:
    """Check that one can push to a repository, as far as that can be known without a network.

    Args:
        repository: ``ORG/NAME``.

    Raises:
        PgkitError: ``huggingface_hub`` is missing, or the name is none of the Hub.
    """
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but not in __all__
    except ImportError:
        raise PgkitError(MISSING) from None
    organisation, separator, name = repository.partition("/")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        separator = ""
    if not (organisation and separator and name):
        raise PgkitError(f"--push must be ORG/NAME of letters, digits, '-', '_' and '.', got {repository!r}")


def push(directory: Path, repository: str) -> str:
    """Upload an exported folder as a model, whose repository is created when missing; return its address.

    Args:
        directory: that :func:`pgkit.deploy.export.export` wrote.
        repository: ``ORG/NAME``.

    Raises:
        PgkitError: as :func:`check_push`, or the Hub cannot be reached or refuses.
    """
    check_push(repository)
    from huggingface_hub import HfApi

    api = HfApi(library_name="pgkit")
    try:
        address = api.create_repo(repository, repo_type="model", exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Upload a policy of pgkit")
    except Exception as error:  # of the network, of the Hub, of a missing token: they have no common class
        reason = describe_exception(error)
        raise PgkitError(
            f"cannot push to {repository} ({reason}); {directory} is whole: hf upload {repository} {directory}"
        ) from None
    return str(address)
