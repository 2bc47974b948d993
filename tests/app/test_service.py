"""Requests and results: what is made, stored, and removed after a failure."""

import dataclasses
import json
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import unstill
from unstill.animation_settings import OneImage
from unstill.app import service as service_module
from unstill.app import uploads
from unstill.app.limits import Limits
from unstill.app.result_store import ResultStore
from unstill.app.service import Stopped, VideoService
from unstill.app.uploads import checked_picture
from unstill.data.video import read_video, write_video
from unstill.errors import UnstillError


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    return VideoService(["pico"], ResultStore(tmp_path_factory.mktemp("store"), 10**8), Limits(), device="cpu")


@pytest.fixture
def page_request():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    return OneImage(
        model="pico",
        image=picture,
        motion=0.4,
        methods=(unstill.EarlyStart(sigma=23.0),),
        frames=4,
        steps=2,
        seed=3,
    )


def quiet(*_):
    pass


def file(service, result, name):
    return service.store.find(result.token, name)


@pytest.mark.parametrize(
    "methods",
    [
        (unstill.EarlyStart(sigma=23.0), unstill.NoiseRectification()),
        (unstill.FreeInit(iterations=2), unstill.ProgressiveNoise(alpha=0.5)),
        "statistics",
    ],
)
def test_the_code_makes_the_very_same_file(service, page_request, methods, tmp_path, monkeypatch):
    if methods == "statistics":
        defaults = unstill.models.registry.defaults_of("pico")
        methods = (unstill.AnalyticInit(**{**defaults, "sigma": 9.0}),)
    result = service.make(dataclasses.replace(page_request, methods=methods), quiet)
    with zipfile.ZipFile(file(service, result, "everything.zip")) as packed:
        packed.extractall(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(set(result.files) - {"everything.zip"})
    monkeypatch.chdir(tmp_path)
    made = {}
    exec((tmp_path / "make_again.py").read_text(), made)
    write_video("again.mp4", made["frames"], 8, upscale=service_module.SHOWN_PIXELS // 96)
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "improved.mp4").read_bytes()
    assert (tmp_path / "again.mp4").read_bytes() != (tmp_path / "plain.mp4").read_bytes()


def test_a_result_says_what_it_is(service, page_request):
    told = []
    result = service.make(page_request, lambda *words: told.append(words))
    settings = json.loads(file(service, result, "settings.json").read_text())
    assert settings["seed"] == 3 and settings["call"]["num_inference_steps"] == 2
    assert settings["methods"] == [{"name": "early_start", "parameters": {"start": None, "sigma": 23.0}}]
    assert settings["scores"] == result.scores and set(result.scores) == {"plain", "improved"}
    assert [done for name, done, total in told if name == "improved" and total == 2] == [0, 1, 2]
    assert len(read_video(file(service, result, "improved.mp4"))) == 4
    assert result.settings == ("Early start, sigma 23",)


def test_a_prompt_alone_is_enough_for_pico(service, page_request):
    result = service.make(dataclasses.replace(page_request, image=None, prompt="a red ring over green"), quiet)
    assert "picture.png" not in result.files and "prompt='a red ring over green'" in result.code
    with pytest.raises(UnstillError, match="give one"):
        service.make(dataclasses.replace(page_request, image=None), quiet)
    with pytest.raises(UnstillError, match="NI-VSDS animates a picture"):
        service.make(
            dataclasses.replace(page_request, image=None, prompt="a ring", methods=(unstill.NIVSDS(),)), quiet
        )


def test_a_stopped_run_leaves_nothing(service, page_request):
    before, steps = set(service.store._root.iterdir()), []

    def tell(name, done, total):
        steps.append(name)

    with pytest.raises(Stopped):
        service.make(page_request, tell, lambda: len(steps) >= 3)
    assert set(service.store._root.iterdir()) == before and "improved" not in steps
    service.make(page_request, quiet)  # and the model is as it was


def test_a_failed_run_leaves_nothing_and_the_next_one_works(service, page_request, monkeypatch):
    before = set(service.store._root.iterdir())
    with monkeypatch.context() as broken:
        broken.setattr("unstill.animation.score_video", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.make(page_request, quiet)
    assert set(service.store._root.iterdir()) == before
    assert "progress_bar" not in vars(service._loaded[1])
    service.make(page_request, quiet)


def test_one_at_a_time(service, page_request):
    """A run that starts while another is at work waits for it, and neither gets the other's video."""
    results = {}
    alone = service.make(dataclasses.replace(page_request, seed=11), quiet)

    def run(seed):
        results[seed] = service.make(dataclasses.replace(page_request, seed=seed), quiet)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (11, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    videos = [file(service, result, "improved.mp4").read_bytes() for result in (alone, results[11], results[12])]
    assert videos[0] == videos[1] != videos[2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "/etc"}, "offers pico"),
        ({"frames": 17}, "Frames goes from 2 to 16"),
        ({"steps": 10_000}, "Steps goes from 1 to 100"),
        ({"seed": -1}, "seed goes from 0"),
        ({"motion": 7}, "Motion goes from 0 to 1"),
        ({"motion": float("nan")}, "Motion goes from 0 to 1"),
        ({"prompt": "a" * 301}, "up to 300 characters"),
    ],
)
def test_limits(service, page_request, change, sentence):
    with pytest.raises(UnstillError, match=sentence):
        service.make(dataclasses.replace(page_request, **change), quiet)


def test_a_model_only_the_hub_knows_is_refused(tmp_path):
    with pytest.raises(UnstillError, match="download it and offer its folder"):
        VideoService(["some/model"], ResultStore(tmp_path, 1), Limits())


def test_the_oldest_results_make_room(tmp_path):
    store, tokens = ResultStore(tmp_path, 250), []
    for _ in range(4):
        token, folder = store.new()
        (folder / "improved.mp4").write_bytes(b"x" * 100)
        store.put(token)
        tokens.append(token)
    assert [(tmp_path / token).exists() for token in tokens] == [False, False, True, True]
    for token, name in ((tokens[0], "improved.mp4"), (tokens[3], "../secret"), ("..", "improved.mp4")):
        with pytest.raises(UnstillError, match="not here any more"):
            store.find(token, name)


def upload(path, data):
    path.write_bytes(data)
    return path


def test_uploads_are_pictures_and_nothing_else_of_them_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    exif[0x0112] = 6  # turned
    photo = Image.new("RGB", (4000, 2000), "red")
    photo.save(tmp_path / "photo.jpg", exif=exif)
    picture = checked_picture(tmp_path / "photo.jpg", Limits())
    assert picture.size == (768, 1536) and picture.mode == "RGB" and not picture.getexif() and not picture.info

    for path, sentence in (
        (upload(tmp_path / "text.jpg", b"only text\n"), r"^text\.jpg is not a picture"),
        (upload(tmp_path / "page.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"), "not a picture"),
        (upload(tmp_path / "cut.png", (tmp_path / "photo.jpg").read_bytes()[:300]), "damaged"),
        (upload(tmp_path / "big.jpg", bytes(20_000_001)), "has 20 MB"),
    ):
        with pytest.raises(UnstillError, match=sentence) as caught:
            checked_picture(path, Limits())
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UnstillError, match="8 megapixels; up to 7"):
        checked_picture(tmp_path / "photo.jpg", Limits(megapixels=7))


def test_a_picture_of_many_scans_is_refused(tmp_path):
    """Every scan of a JPEG is a pass over all its pixels: 20 MB hold hours of them."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    last = data.rindex(b"\xff\xda")
    assert checked_picture(tmp_path / "a.jpg", Limits()).size == (64, 64)
    (tmp_path / "b.jpg").write_bytes(data[:last] + data[last:-2] * 200 + data[-2:])
    with pytest.raises(UnstillError, match="more than 100 scans"):
        checked_picture(tmp_path / "b.jpg", Limits())


def test_thirty_visitors_at_once_are_answered_with_one_decoding_at_a_time(tmp_path, monkeypatch):
    Image.radial_gradient("L").resize((1200, 900)).convert("RGB").save(tmp_path / "a.jpg")
    real, now, most = uploads.decode_rgb, [], []

    def counted(*args):
        now.append(1)
        most.append(len(now))
        try:
            return real(*args)
        finally:
            now.pop()

    monkeypatch.setattr(uploads, "decode_rgb", counted)
    with ThreadPoolExecutor(30) as visitors:
        made = list(visitors.map(lambda _: checked_picture(tmp_path / "a.jpg", Limits()), range(30)))
    assert [picture.size for picture in made] == [(1200, 900)] * 30
    assert max(most) == 1 and len(most) == 30


def test_more_visitors_than_can_wait_are_told_so(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(uploads, "_waiting", threading.Semaphore(1))
    with uploads._waiting, pytest.raises(UnstillError, match="Many pictures are being read just now"):
        checked_picture(tmp_path / "a.png", Limits())
    assert checked_picture(tmp_path / "a.png", Limits()).size == (8, 8)  # there is room again


def test_pictures_are_decoded_one_at_a_time_in_bounded_memory(tmp_path):
    """Three 16-bit pictures of 25 megapixels at once: 50 kB each on the disk."""
    code = (
        "import resource, sys, threading\nfrom pathlib import Path\nimport PIL.Image, numpy, torch\n"
        "from unstill.app.limits import Limits\nfrom unstill.app.uploads import checked_picture\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ask = lambda: checked_picture(Path(sys.argv[1]), Limits())\n"
        "threads = [threading.Thread(target=ask) for _ in range(3)]\n"
        "[thread.start() for thread in threads], [thread.join() for thread in threads]\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    Image.fromarray(np.zeros((5000, 5000), np.uint16)).save(tmp_path / "grey.png", compress_level=9)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "grey.png")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 500e6, "324 MB were measured, and 788 MB where three are decoded at once"


@pytest.mark.parametrize("change", [{"methods": (unstill.FreeInit(iterations=1000),)}])
def test_the_number_of_passes_is_limited(service, page_request, change):
    with pytest.raises(UnstillError, match="up to 20 times here"):
        service.make(dataclasses.replace(page_request, **change), quiet)
