"""Whether the Hugging Face hub answers, so that what is in the local cache loads without it."""

from __future__ import annotations


HUB_TIMEOUT = 3.0
"""Seconds that the hub is waited for."""


def hub_answers(repository: str) -> bool:
    """
    Whether the hub answers a request about a repository within `HUB_TIMEOUT`.

    diffusers asks the hub for a newer version before it looks into the cache, and waits without a limit. Where this
    function returns `False`, pass `local_files_only=True`.

    Args:
        repository: its id. For one that does not exist or needs a licence the hub answers too.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.model_info(repository, timeout=HUB_TIMEOUT)
    except HfHubHTTPError:
        return True
    except Exception:  # offline or no connection: each HTTP library has its own error
        return False
    return True
