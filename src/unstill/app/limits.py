"""Limits per request and for the whole server, shared by the page, the API and the server."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """
    Limits of the app.

    Attributes:
        upload: bytes of one uploaded file.
        uploads: bytes of all uploads on disk at a time; an upload counts for at least 64 kB.
        message: bytes of any other request.
        megapixels: of an uploaded picture, checked before it is decoded.
        side: pixels of the longer side to which uploaded pictures are scaled down.
        prompt: characters.
        pixels: height x width of one generated frame.
        frames: of one video; also limited by what the model was trained for.
        steps: sampling steps.
        passes: iterations of FreeInit, each of which samples the whole video.
        waiting: requests in the queue; further ones are refused.
        results: bytes of all results on disk; the oldest are removed first.
        history: results that a session keeps.
    """

    upload: int = 20_000_000
    uploads: int = 500_000_000
    message: int = 1_000_000
    megapixels: int = 50
    side: int = 1536
    prompt: int = 300
    pixels: int = 1280 * 720
    frames: int = 129
    steps: int = 100
    passes: int = 20
    waiting: int = 16
    results: int = 500_000_000
    history: int = 12
