"""ComfyUI nodes of unstill. ComfyUI calls `comfy_entrypoint`; nothing is downloaded, and no file is written."""

from comfy_api.latest import ComfyExtension, io


try:
    import unstill  # noqa: F401
except ImportError as error:
    raise ImportError(
        "The unstill nodes need the package unstill: run `pip install unstill` with the Python that runs ComfyUI."
    ) from error


class UnstillExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .nodes import NODES

        return list(NODES)


async def comfy_entrypoint() -> UnstillExtension:
    return UnstillExtension()
