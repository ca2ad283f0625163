"""What all tests share: where the golden vectors are, and how workers share the processors."""

import os
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A worker of pytest-xdist, and every program that its tests start, has a processor for itself.
# Said before anything loads a library that asks.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says nothing where others compute beside it.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker for each processor that this process may use: threads of a core count, too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_addoption(parser):
    parser.addoption(
        "--require-golden",
        action="store_true",
        help="fail, not skip, where golden vectors and genomes are not beside the repository",
    )


@pytest.fixture(autouse=True)
def environment():
    """What a test, or what it calls, puts into the environment is gone for the next one."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    from forks import flush_nothing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", flush_nothing)
        yield


@pytest.fixture(scope="session")
def shared(request) -> Path:
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        missing = "the folder shared, with golden vectors and genomes, is not beside this one"
        if request.config.getoption("--require-golden"):
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden"
