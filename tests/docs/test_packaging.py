"""What people install: the wheel, the source distribution, and the files around them."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"pgkit": "pgkit", "agents": "pgkit/agents", "configs": "pgkit/configs"}
SHIPPED = (".py", ".pyi", ".toml", ".md", ".typed", ".j2", ".safetensors")


def shipped() -> set[str]:
    """Files of the wheel as the source tree has them."""
    packages = set()
    for folder, target in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SHIPPED or path.name == "py.typed":
                packages.add(f"{target}/{path.relative_to(ROOT / folder).as_posix()}")
    return packages


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it; built without a network."""
    work = tmp_path_factory.mktemp("packaging")
    source = work / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return work / "dist"


@pytest.fixture(scope="module")
def site(dist: Path) -> Path:
    """The wheel, unpacked as installers do."""
    (wheel,) = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(dist / "site")
    return dist / "site"


def run(site: Path, *words: str) -> str:
    """Run Python where only the unpacked wheel is pgkit."""
    command = [sys.executable, *words]
    environment = {"PYTHONPATH": str(site), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=site.parent, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_pgkit_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"pgkit", f"pgkit_rl-{version}.dist-info"}
    content = {name for name in names if name.startswith("pgkit/")}
    assert content == shipped()
    assert {"pgkit/agents/reinforce.py", "pgkit/configs/cartpole-reinforce.toml", "pgkit/py.typed"} <= content


def test_source_distribution_holds_the_same(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    expected = {name.replace("pgkit/agents", "agents").replace("pgkit/configs", "configs") for name in shipped()}
    assert expected | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_every_package_is_named() -> None:
    packages = set()
    for folder, target in FOLDERS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            below = path.parent.relative_to(ROOT / folder).as_posix()
            packages.add(f"{target}/{below}".removesuffix("/.").replace("/", "."))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages
    with_code = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in with_code)


def test_installed_wheel_works_and_agents_is_never_a_top_level_package(site: Path) -> None:
    agents = sorted(path.stem for path in (ROOT / "agents").glob("*.py") if path.stem != "__init__")
    assert {"actor_critic", "reinforce"} <= set(agents)
    imports = "".join(f"import pgkit.agents.{agent}\n" for agent in agents)
    code = f"""
import sys, pgkit, pgkit.agents, pgkit.configs
{imports}
print(pgkit.__file__, pgkit.agents.__file__, pgkit.configs.__file__)
assert "agents" not in sys.modules and "configs" not in sys.modules
"""
    files = [Path(word) for word in run(site, "-c", code).split()]
    assert [file.relative_to(site).parts[:-1] for file in files] == [
        ("pgkit",),
        ("pgkit", "agents"),
        ("pgkit", "configs"),
    ]


WITHOUT_EDITABLE_INSTALL = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
runpy.run_module("pgkit", run_name="__main__")
"""


@pytest.mark.parametrize("words", ["list configs", "train cartpole-reinforce steps=50 --out {}/run"])
def test_the_checkout_works_where_its_folder_hides_the_installed_package(words: str, tmp_path: Path) -> None:
    """As ``python -m pgkit`` does there after a plain install; scripts/ run it, too."""
    command = [sys.executable, "-c", WITHOUT_EDITABLE_INSTALL, *words.format(tmp_path).split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr.count("Error")) == (0, 0), done.stderr
    assert "actor-critic" in done.stdout or (tmp_path / "run" / "result.json").is_file()


def test_editable_install_has_no_top_level_agents() -> None:
    code = "import sys, pgkit, pgkit.agents, pgkit.agents.reinforce; print('agents' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_installed_command_finds_its_configs(site: Path) -> None:
    names = run(site, "-m", "pgkit", "list", "configs")
    for config in (ROOT / "configs").glob("*.toml"):
        assert config.stem in names
    assert PROJECT["project"]["version"] in run(site, "-m", "pgkit", "--version")


# --- files around it ---


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "versions only: no paths, no hosts, no builds"
    pinned = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    assert len(pinned) == len(pins)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["envpool"], *extras["test"], *extras["dev"]]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}  # type: ignore[index]
    assert names - {"pgkit-rl"} <= pinned


def test_readme_has_the_two_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv.*$", readme, re.MULTILINE)
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . "
        "&& .venv/bin/pgkit train cartpole-actor-critic",
        'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[dev]" '
        "&& .venv/bin/python -m pytest -n auto",
    ]
    assert "grep '^python3 -m venv' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_top_level_holds_only_what_it_should() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs git to know what is part of the project")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    visible = {name.split("/")[0] for name in listed.splitlines() if not name.startswith(".")}
    assert visible <= {"pyproject.toml", "README.md", "pgkit", "agents", "configs", "scripts", "tests"} | {
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
    }


def test_nothing_that_is_shipped_is_ignored() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs git to know what is ignored")
    names = [f"{folder}/{name}" for folder in FOLDERS for name in ("runs/x.toml", "build/x.py", "dist/x.py")]
    names += ["configs/comparisons/x.toml", "tests/runs/x"]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout == ""
    runs = ["runs/x", "comparisons/x", "build/x", "dist/x", ".venv/x"]
    ignored = subprocess.run(["git", "check-ignore", *runs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == runs


def test_changelog_knows_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['project']['version']}" in changelog


def test_the_citation_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
