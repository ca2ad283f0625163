from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--require-golden",
        action="store_true",
        help="fail, not skip, where golden vectors and genomes are not beside the repository",
    )


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
