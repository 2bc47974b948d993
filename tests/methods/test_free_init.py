"""FreeInit against the released loop, and where diffusers' own does not run."""

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

import unstill
from tests.methods.sampler import Sampler, animatediff_ddim, network_c
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.free_init import FreeInit


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "free_init.safetensors"
IMAGE = torch.zeros(1, 4, 1, 8, 8)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def network_b(scheduler):
    """Network B' of the golden data."""
    abar = scheduler.alphas_cumprod
    return lambda z, t: (1 - abar[int(t)]).sqrt() * z + 0.1 * torch.tanh(0.7 * z.roll(1, 2) + 0.001 * t)


@pytest.mark.parametrize(("name", "coarse"), [("freeinit", False), ("freeinit_fast", True)])
def test_golden_loops(golden, name, coarse):
    scheduler = animatediff_ddim()
    noises = [golden["freeinit.noise"], golden["freeinit.z_rand1"], golden["freeinit.z_rand2"]]
    network, starts, ends = network_b(scheduler), [], []

    class Recorded(Sampler):
        def __call__(self, *args, **kwargs):
            output = super().__call__(*args, **kwargs)
            starts.append(self.visited[0])
            ends.append((len(self.visited) - 1, output.frames))
            return output

    pipe = Recorded(scheduler, network, IMAGE, noises=iter(noises))
    method = FreeInit.preset("released", iterations=3, coarse_to_fine=coarse)
    final = unstill.free_init(pipe, method, num_inference_steps=6).frames
    assert [steps for steps, _ in ends] == ([2, 4, 6] if coarse else [6, 6, 6])
    for i, (_, end) in enumerate(ends):
        torch.testing.assert_close(end, golden[f"{name}.final{i}"], rtol=1e-5, atol=1e-4)
        if i:
            torch.testing.assert_close(starts[i], golden[f"{name}.reinit{i}"], rtol=1e-5, atol=1e-4)
    assert torch.equal(final, ends[-1][1])


def test_golden_animatediff(golden):
    noises = iter([golden["official.init_noise"], *golden["official.z_rand"]])
    pipe = Sampler(animatediff_ddim(), lambda z, t: network_c(z, t, 7.5), IMAGE, noises=noises)
    final = unstill.free_init(pipe, FreeInit(iterations=3), num_inference_steps=10).frames
    torch.testing.assert_close(pipe.visited[0], golden["official.mixed"][-1], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(final, golden["official.iter_end"][-1], rtol=1e-5, atol=1e-4)


def test_reinitialize_mixes_what_it_says(golden):
    process = ForwardProcess.of(animatediff_ddim())
    for i in range(2):
        mixed = FreeInit().reinitialize(
            process, golden["official.iter_end"][i], golden["official.init_noise"], golden["official.z_rand"][i]
        )
        torch.testing.assert_close(mixed, golden["official.mixed"][i], rtol=1e-5, atol=1e-4)


def test_steps_from_coarse_to_fine():
    method = FreeInit(iterations=3, coarse_to_fine=True)
    assert [method.steps(10, i) for i in range(3)] == [3, 6, 10]
    assert [FreeInit(iterations=4, coarse_to_fine=True).steps(2, i) for i in range(4)] == [1, 1, 1, 2]
    assert [FreeInit().steps(10, i) for i in range(5)] == [10] * 5


@pytest.mark.parametrize(
    ("scheduler", "level"),
    [
        (diffusers.EulerDiscreteScheduler(timestep_spacing="leading"), 1.0),  # where enable_free_init fails
        (diffusers.DPMSolverMultistepScheduler(), 1.0),
        (diffusers.FlowMatchEulerDiscreteScheduler(), 0.95),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_scheduler(scheduler, level):
    pipe = Sampler(scheduler, lambda x, t: 0.1 * torch.tanh(x), IMAGE, frames=4)
    kept = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        method = FreeInit(iterations=2, level=level)
        kept.append(unstill.free_init(pipe, method, num_inference_steps=4, generator=generator).frames)
    assert torch.equal(*kept)
    # The second start by hand, from the first video.
    generator = torch.Generator().manual_seed(0)
    video = pipe(4, generator=generator).frames
    initial = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(1, 4, 4, 8, 8, generator=generator)
    start = FreeInit(level=level).reinitialize(ForwardProcess.of(scheduler), video, initial, fresh)
    torch.testing.assert_close(pipe(4, latents=start).frames, kept[0], rtol=1e-5, atol=1e-5)


def test_one_iteration_is_the_pipeline_alone():
    pipe = Sampler(animatediff_ddim(), lambda x, t: 0.1 * torch.tanh(x), IMAGE, frames=4)
    alone = pipe(4, generator=torch.Generator().manual_seed(0)).frames
    generator = torch.Generator().manual_seed(0)
    once = unstill.free_init(pipe, FreeInit(iterations=1), num_inference_steps=4, generator=generator).frames
    assert torch.equal(once, alone)


def test_inside_apply():
    pipe = Sampler(animatediff_ddim(), lambda x, t: 0.1 * torch.tanh(x), IMAGE, frames=4)
    own = pipe.scheduler
    with unstill.apply(pipe, unstill.NoiseRectification(period=(0, 1))) as applied:
        generator = torch.Generator().manual_seed(0)
        final = unstill.free_init(pipe, FreeInit(iterations=2), num_inference_steps=4, generator=generator).frames
        torch.testing.assert_close(final[:, :, 0], IMAGE[:, :, 0], rtol=0, atol=1e-5)
        assert len(applied.methods) == 1
    assert pipe.scheduler is own


def test_sampling_takes_it_among_other_methods():
    pipe = Sampler(animatediff_ddim(), lambda x, t: 0.1 * torch.tanh(x), IMAGE, frames=4)
    method, other = FreeInit(iterations=2), unstill.NoiseRectification()
    with unstill.hooks.sampling(pipe, method, other) as sampler:
        video = sampler(generator=torch.Generator().manual_seed(0)).frames
        assert len(pipe.visited) == 26  # the pipeline's own number of steps
    with unstill.apply(pipe, other):
        generator = torch.Generator().manual_seed(0)
        assert torch.equal(video, unstill.free_init(pipe, method, num_inference_steps=25, generator=generator).frames)
    with unstill.hooks.sampling(pipe, other) as sampler:
        assert sampler is pipe
    with pytest.raises(UnstillError, match="FreeInit was given twice"):
        with unstill.hooks.sampling(pipe, method, FreeInit()):
            pass


def test_what_is_refused():
    with pytest.raises(UnstillError, match="1 to 1000 iterations"):
        FreeInit(iterations=0)
    pipe = Sampler(animatediff_ddim(), None, IMAGE)
    with pytest.raises(UnstillError, match="call unstill.free_init"):
        unstill.apply(pipe, FreeInit())
    with (
        unstill.apply(pipe, unstill.FrameInit()),
        pytest.raises(UnstillError, match="FrameInit and FreeInit both decide"),
    ):
        unstill.free_init(pipe, FreeInit(), num_inference_steps=4)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(UnstillError, match="give FreeInit a lower level"):
        unstill.free_init(pipe, FreeInit(level=1.0), num_inference_steps=4)
