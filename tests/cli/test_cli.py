"""The edge of every verb: help, old names and new ones, values as they stand, exit codes, one kind message."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_cli import command_line
from lfm_cli.arguments import settings_in
from lfm_cli.describe import VERBS, help_of, overview
from lfm_policy.errors import ConfigError

FOLDER = Path(command_line.__file__).parent
HEAVY = ("torch", "hydra", "mujoco", "robosuite", "numba")


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lfm_cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | environment)


def _module(verb: str):
    import importlib

    return importlib.import_module(f"lfm_cli.{verb}")


def test_every_verb_is_in_a_group_and_none_imports_another() -> None:
    files = {path.stem: path.read_text() for path in FOLDER.glob("[a-z]*.py")}
    assert {name for name, text in files.items() if "def main(settings" in text} == set(VERBS)
    for verb in VERBS:
        assert not re.search(rf"lfm_cli(\.| import )({'|'.join(VERBS)})\b", files[verb]), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_described_once_and_has_its_default_there(verb: str) -> None:
    module = _module(verb)
    shown = " ".join(help_of(verb, module).split())
    for setting in settings_in(module.Settings):
        if not setting.name.endswith(".kind") and not (setting.of and setting.name.endswith("path")):
            assert setting.description, f"{verb}: {setting.name}"
            assert f" {setting.name}=" in shown


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_terminal_of_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = (help_of(verb, _module(verb)) if verb else overview()).splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_no_word_has_two_names() -> None:
    """The glossary: what one verb calls policy, no other calls checkpoint."""
    old = set(command_line.RENAMED)
    for verb in VERBS:
        module = _module(verb)
        names = {setting.name for setting in settings_in(module.Settings)}
        assert not names & (old | set(getattr(module, "RENAMED", {}))), verb


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_help_and_misspelt_settings_wait_for_no_heavy_library(verb: str) -> None:
    code = (
        f"import sys; from lfm_cli.command_line import run; run('{verb}', ['--help']); run('{verb}', ['sed=1']); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_the_overview_names_all_verbs_and_is_light() -> None:
    code = "import sys; from lfm_cli.__main__ import main; main(None, ['--help']); print(len(sys.modules))"
    heavy = f"print([name for name in {(*HEAVY, 'pydantic', 'numpy', 'rich')} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], check=True, capture_output=True, text=True)
    assert all(f"  {verb}" in found.stdout for verb in VERBS)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: there is no command 'trian': did you mean 'train'?"),
        (["evaluate", "polcy=x"], "error: unknown setting 'polcy': did you mean 'policy'?"),
        (["evaluate", "policy=nowhere"], "error: there is no policy 'nowhere': expected the folder of a run"),
        (["evaluate", "policy"], "error: there is no policy 'policy'"),
        (["evaluate", "a", "b"], "error: expected key=value, found 'b' (try --help)"),
        (["evaluate", "episodes=0", "policy=x"], "'episodes': Input should be greater than or equal to 1; found 0"),
        (["evaluate", "episodes=[1", "policy=x"], "error: "),
        (["evaluate"], "error: missing: policy=VALUE"),
        (["monitor", "policy=x"], "error: missing: data.path=VALUE"),
        (["train", "preset=none.yaml"], "error: preset=none.yaml: expected a YAML file of settings, found none"),
        (["train", "experiment=robot/lif"], "there is no experiment=robot/lif: did you mean 'robot/lift'?"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = _run(*arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("verb", "argument", "message"),
    [
        ("evaluate", "checkpoint=x", "'checkpoint' is called 'policy' now"),
        ("control", "bundle=x", "'bundle' is called 'policy' now"),
        ("export", "set=raw", "'set' is called 'weights' now"),
        ("control", "env=x", "'env' is called 'environment' now"),
        ("demo", "model=tiny", "'model' is called 'size' now"),
        ("train", "steps=3", "'steps' is called 'updates' now"),
        ("evaluate", "steps=3", "'steps' is called 'solver.steps' now"),
        ("evaluate", "solver=rk4", "'solver' has parts, found solver=rk4: give solver.method="),
        ("delay", "loss=0.1", "'loss' is called 'packet_loss' now"),
        ("monitor", "demonstrations=x", "'demonstrations' is called 'data.path' now"),
        ("train", "learning_rate=1", "did you mean 'optimiser.learning_rate'"),
        ("train", "data.path=", "gives no value"),
    ],
)
def test_old_and_nearby_names_are_answered(verb: str, argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        command_line.load(verb, [argument])


NAMES = ("lift (1).hdf5", "epoch=0450-test.hdf5", "übung/d.hdf5", "李明.hdf5", "v#2.hdf5", "it's.hdf5", "x[1].hdf5")
NAMES += ("{y}.hdf5", "a,b.hdf5", "42", "1e3", "null.hdf5", "$x.hdf5", 'a "b".hdf5', "[z].hdf5", "true", "a: b", "-x")


@pytest.mark.parametrize("name", NAMES)
def test_paths_stand_for_themselves(name: str) -> None:
    assert command_line.load("doctor", [f"source={name}"]).source == Path(name)
    assert command_line.load("prepare", [f"source={name}"]).source == (Path(name),)
    assert command_line.load("evaluate", [f"policy={name}"]).policy == name


def test_paths_of_a_training() -> None:
    found = command_line.load("train", ["data.path=~/[x], y=1", "out=42"])
    assert (found.data.path, found.out) == (Path("~/[x], y=1").expanduser(), Path("42"))


def test_lists_of_paths() -> None:
    def source(*arguments: str) -> list[str]:
        return [str(path) for path in command_line.load("prepare", list(arguments)).source]

    assert source("source=[a.hdf5, b c.hdf5]") == ["a.hdf5", "b c.hdf5"]
    assert source("source=a,b", "source=x[1]") == ["a,b", "x[1]"]
    assert source('source=["a,b", "c]"]') == ["a,b", "c]"]
    assert source("source=[1,2]") == ["1", "2"]


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert command_line.load("doctor", ["source=~/x"]).source == Path("/home/me/x")
    assert command_line.load("evaluate", ["~/x"]).policy == "/home/me/x"
    assert command_line.load("doctor", ["source=./~/x"]).source == Path("~/x")


def test_values_of_other_kinds() -> None:
    train = command_line.load(
        "train",
        ["data.path=x", "out=y", "flow.gammas=[0.1, 2.0e-1]", "optimiser.step_decay={factor: 0.9, every: 10}"],
    )
    assert train.flow.gammas == (0.1, 0.2)
    assert train.optimiser.step_decay.every == 10
    assert command_line.load("benchmark", ["suite=[data,latency]"]).suite == ("data", "latency")
    assert command_line.load("reproduce", ["table=fig2", "tasks=[tree]"]).tasks == ("tree",)
    assert command_line.load("reproduce", ["table=3", "source=null"]).source is None


def test_one_length_takes_the_place_of_the_other() -> None:
    common = ["data.path=x", "out=y"]
    assert command_line.load("train", [*common, "updates=3"]).epochs is None
    assert command_line.load("train", [*common, "size=small", "epochs=2"]).updates is None


def test_a_network_of_ones_own_needs_no_file() -> None:
    common = ["data.path=x", "out=y", "network._target_=mine.Net"]
    assert command_line.load("train", [*common, "~network.dims", "network.width=3"]).network == {
        "_target_": "mine.Net",
        "time_dim": 128,
        "width": 3,
    }
    whole = command_line.load("train", [*common[:2], "network={_target_: mine.Net, width: 3}"])
    assert whole.network == {"_target_": "mine.Net", "width": 3}


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mein preset.yaml"
    file.write_text("experiment: robot/can\nsize: tiny\nname: mine\nnetwork: {_target_: mine.Net}\nupdates: 7\n")
    found = command_line.load("train", [f"preset={file}", "data.path=x", "out=y", "batch=3"])
    assert (found.name, found.network, found.updates, found.epochs, found.batch) == (
        "mine",
        {"_target_": "mine.Net"},
        7,
        None,
        3,
    )
    with pytest.raises(ConfigError, match="expected a YAML file of settings"):
        command_line.load("train", [f"preset={tmp_path}/none.yaml"])


def test_a_terminal_that_knows_ascii_alone_gets_what_it_can_show() -> None:
    result = _run("control", "--help", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert "[m/s2]" in result.stdout
    assert result.stdout.isascii()


@pytest.mark.parametrize(
    ("out", "words"),
    [("file/below", "a file stands"), ("n" * 300 + "/x", "too long")],
)
def test_what_the_system_refuses_is_told_in_one_line(tmp_path: Path, out: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    result = _run("benchmark", "suite=[]", f"out={tmp_path / out}")
    assert result.returncode == 4, result.stderr
    assert re.search(words, result.stderr)
    assert "the same command continues" in result.stderr
    assert "Traceback" not in result.stderr


def test_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd {tmp_path / 'gone'} && rmdir {tmp_path / 'gone'} && {sys.executable} -m lfm_cli --help"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: the folder that this was called in has been removed: cd to another one\n"


@pytest.mark.parametrize(
    ("verb", "argument", "message"),
    [
        ("evaluate", "temperature=1e300", "'temperature': Input should be less than or equal to 100"),
        ("evaluate", "episodes=1000000000000", "'episodes': Input should be less than or equal to 1000000"),
        ("evaluate", "solver.steps=1000000", "Input should be less than or equal to 10000"),
        ("distill", "seed=-1", "'seed': Input should be greater than or equal to 0"),
        ("distill", "seed=18446744073709551616", "'seed': Input should be less than 9223372036854775808"),
    ],
)
def test_numbers_that_nothing_could_work_with(
    verb: str, argument: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["blocks=1"] if verb == "distill" else []
    assert command_line.run(verb, ["policy=x", *more, argument, f"out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("made", command_line.MARKS)
def test_what_another_command_has_made_is_not_written_into(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / made).mkdir()
    assert command_line.run("benchmark", ["suite=[]", f"out={tmp_path}"]) == 2
    assert f"has made ({made}): choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [made]


def test_reconstructing_goes_on_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    arguments = [f"source={tmp_path / 'nothing'}", "task=lift", f"out={tmp_path}"]
    assert command_line.run("reconstruct", arguments) == 2
    assert "has made" not in (said := capsys.readouterr().err)
    assert "nothing" in said


def test_a_closed_standard_output(tmp_path: Path) -> None:
    command = f"{sys.executable} -m lfm_cli benchmark 'suite=[]' out={tmp_path / 'out'} >&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_presets_that_never_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert command_line.run("evaluate", [f"preset={tmp_path / 'pipe'}"]) == 2
    (tmp_path / "deep.yaml").write_text("[" * 20_000)
    assert command_line.run("evaluate", [f"preset={tmp_path / 'deep.yaml'}"]) == 2
    assert "found one nested too deep" in capsys.readouterr().err


def test_links_in_a_circle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert command_line.run("prepare", [f"source={tmp_path / 'a'}", f"out={tmp_path / 'd.zarr'}"]) == 2
    assert "no demonstration file at" in capsys.readouterr().err


def test_memory_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(settings: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 512000000 bytes.")

    monkeypatch.setattr(_module("benchmark"), "main", main)  # a machine without memory is no machine for tests
    assert command_line.run("benchmark", ["suite=[]", f"out={tmp_path}"]) == 4
    assert "the memory is not enough" in capsys.readouterr().err


def test_what_strangers_write_into_files_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run("evaluate", ["policy=no\x1b[31mthing\x07"]) == 2
    assert "no\\x1b[31mthing\\x07" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "outputs/lift: the disk is full: free some space, or choose another"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: that is not permitted: change its permissions"),
        (OSError(30, "Read-only file system", "/x"), "/x: the file system is read-only: choose another folder"),
        (OSError(116, "Stale file handle", "/nfs/x"), "/nfs/x: Stale file handle: see to it"),
    ],
)
def test_what_the_system_says_is_told_kindly(error: OSError, words: str) -> None:
    said = command_line.told(error, Path("outputs/lift"))
    assert said.startswith(words)
    assert "no file is left half-written" in said


def test_a_full_disk_is_known_behind_the_error_of_a_library(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert command_line.system_code(full) == 28
    assert command_line.system_code(ValueError("28")) is None
