"""What one visitor may ask for, and what all visitors together may take; the page, the API and the server share it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """
    Attributes:
        upload: bytes of one uploaded file.
        uploads: bytes of all uploads that lie on the disk at one time; a small one counts for 64 kB.
        message: bytes of any other request.
        megapixels: of an uploaded picture, before it is decoded.
        side: pixels of the longer side that is kept of it.
        prompt: characters.
        pixels: of one frame (height x width) that a model may make.
        frames: of one video, and no more than the model was trained for.
        steps: sampling steps.
        passes: iterations of FreeInit, each of which samples the whole video.
        waiting: visitors in the queue; the next one is asked to come back.
        results: bytes of all results on the disk; the oldest ones go first.
        history: results that a session remembers.
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
